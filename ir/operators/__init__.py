"""Operators: what their schemas do not tell.

facts         which of torch's operators rearrange elements, and in whose memory
higher_order  nodes that run functions: cond, loops, flex_attention
int_sizes     those that take sizes as plain ints, such as linspace, over sizes that may change
registration  operators from outside torch: the module and library that register them
"""
