"""Attention over pages of keys and values.

attention       the function, which stage files bring along: a kernel, and plain torch where there is none for it
paged_operator  the same as an operator of graphs
"""
