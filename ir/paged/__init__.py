"""Attention over pages of keys and values.

attention       the function, whose file artifacts have beside their stages: a kernel, and plain torch without one
paged_operator  the same as an operator of graphs
"""
