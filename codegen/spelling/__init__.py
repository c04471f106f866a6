"""Operators, literals, paths and modules as Python expressions.

From the smallest to what holds it:

    literals         sizes, numbers, dtypes
    operators        `a + b`, `x.view(…)`, `F.linear(…)`: a call of an operator
    torch_modules    `nn.Linear(768, 3072)`: modules of torch's own
    higher_order     `cond` and other operators that run functions
    opaque_modules   modules that are kept whole: imports, objects and calls
    expressions      the tree of an expression, and its spelling
    paths            `self.h[0].attn`: dotted names of modules and tensors
"""
