"""Operators, literals, paths and modules as Python expressions.

From the smallest to what holds it:

    literals         sizes, numbers, dtypes
    size_names       `height_4`: names of sizes that follow from others
    writers          the ways to write a call of an operator
    operators        `a + b`, `x.view(…)`, `F.linear(…)`: a call of an operator
    subscripts       `x[:, None, 1:5]`: slices, picks and new dimensions
    torch_modules    `nn.Linear(768, 3072)`: modules of torch's own
    higher_order     `cond` and other operators that run functions
    opaque_modules   modules that are kept whole: imports, objects and calls
    expressions      the tree of an expression, and its spelling
    paths            `self.h[0].attn`: dotted names of modules and tensors
"""
