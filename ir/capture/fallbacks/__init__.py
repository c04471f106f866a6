"""Ways to record a model that torch.export does not take as it is.

ways            the ways, in the order in which they are tried
traced          make_fx: operator by operator, after autograd
opaque_modules  modules that are kept whole, as one operator each
made_up         random values for the arguments of such a module
probe           types of what such a module returns, from runs at several sizes
"""
