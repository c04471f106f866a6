"""ExportedProgram -> Graph.

reader         the walk over an exported program that makes the graph's values and nodes
higher_order   cond, loops, scan, map and flex_attention with the functions that they run
trips          the number of turns of a loop
in_place/      in-place operators, and the program without them
ties           names of tensors that are one in memory
leaves         its weights, constants and states
result_types   types and sizes of its results
returned       what it returns, and the inputs that it changed
folded         results whose values were known, as constants
no_ops         nodes that are left out: assertions, casts to the same dtype, dropout that is off
gradients      where gradients end: detach(), no_grad, functions with a backward of their own
layouts        notes on what depends on the layout of tensors in memory
default_dtype  dtypes that the model took from torch's default, stated where they are
"""
