"""Example inputs of a checkpoint folder.

example_inputs  those made from its configuration
example_sizes   those of sizes that the user names
image_tokens    the tokens of a text that an image takes
variants        other values of inputs that decide shapes, and example inputs that go with them
"""
