"""ExportedProgram -> Graph.

reader         the walk over an exported program that makes the graph's values and nodes
higher_order   cond, loops, scan, map and flex_attention with the functions that they run
trips          the number of turns of a loop
functional     the program without in-place operators and transforms
ties           names of tensors that are one in memory
leaves         its weights, constants and states
result_types   types and sizes of its results
returned       what it returns, and the inputs that it changed
folded         results whose values were known, as constants
no_ops         nodes that are left out: assertions, casts to the same dtype, dropout that is off
gradients      where gradients end: detach(), no_grad, functions with a backward of their own
stores         in-place changes of buffers, as functions
mutation       in-place operators, as functions where the mutation cannot be observed
reading_order  notes on in-place operators that read what they change
layouts        notes on what depends on the layout of tensors in memory
default_dtype  dtypes that the model took from torch's default, stated where they are
own_results    copies of results that would lie in the memory of an input, a weight, a constant or a state
"""
