"""A model and an example call -> ExportedProgram -> Recording.

example       the model, its call, and the dimensions that may change
fixed/        inputs and buffers whose values decide shapes, captured at those of the example
meta_weights  parameters on the meta device, faked as CPU or given values for a while
ambient       questions about torch's ambient state
tracing_questions  questions of the model's code whether it is exported
derivatives   derivatives that forward takes itself
gradient_hooks  hooks on gradients, which no stage has
module_state  buffers and `.data` that forward assigns, and modules that it converts
types_of_nodes  the types of recorded tensors, kept in less time
replaced/     code of torch's own that reads or computes otherwise meanwhile
flat_model    the model as a function of a flat list, and what a run of it shows
recording     the export of that, read as a graph
"""
