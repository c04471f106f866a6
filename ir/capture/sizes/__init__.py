"""Sizes that may change: named by the user, asked about by the model's code, bounded by what was recorded.

dynamic    the user's `dynamic_shapes` -> a mark for each dimension that may change
iterated   tensors along a dimension of any size, which are joined again
rounded_up  sizes that are rounded up to a multiple, in one form however a model computes them
last_items  slices of the last items, of which there may be fewer
series     elements of tensors that follow from sizes, and what operators make of them
in_tensors  numbers that are read from such tensors
questions  what the model's own code asks of sizes while it is exported
guards     conditions on the sizes under which the recording is the model
counts     how often inputs must hold a value, as the model's code asserts
allowed    the values of a size that guards leave, in words
symbols    torch's size symbols -> ours, with their ranges, guards and questions
"""
