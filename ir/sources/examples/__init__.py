"""Example inputs of a checkpoint folder.

example_inputs  those made from its configuration
example_sizes   those of sizes that the user names
described_images  images of sizes that a model is told
configured      values of a configuration
image_tokens    the tokens of a text that an image takes
padded_images   images of several texts in one tensor, some of which are padding
variants        other values of inputs that decide shapes, and example inputs that go with them
"""
