"""Rows of a batch, followed through the operators.

In the order in which data meets them:

    axis    the place of the rows in a tensor, and the errors where there is none
    shapes  operators that move, copy or make elements: views, concatenation, factories
    compute operators that work on numbers: elementwise, reductions, products, layers
    numeric signals, geometry, linear algebra, steps of recurrent layers
    indices operators that read or write at indices
    order   operators that sort the rows, compute on them in that order and put them back
    rules   operator -> its rule
"""
