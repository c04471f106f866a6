"""Changes in place, and memory that several tensors share.

functional     the program without in-place operators and transforms
plain_form     its operators as a person would have written them
stores         in-place changes of buffers, as functions
mutation       in-place operators, as functions where the mutation cannot be observed
reading_order  notes on in-place operators that read what they change
own_results    copies of results that would lie in the memory of an input, a weight, a constant or a state
"""
