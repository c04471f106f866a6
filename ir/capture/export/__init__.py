"""A model and an example call -> ExportedProgram -> Recording.

example       the model, its call, and the dimensions that may change
fixed_inputs  inputs whose values decide shapes, captured as constants
meta_weights  parameters on the meta device, faked as CPU or given values for a while
module_state  buffers and `.data` that forward assigns, and modules that it converts
padding       nn.TransformerEncoder under a padding mask, as in inference
recording     the export, read as a graph
"""
