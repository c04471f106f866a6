"""Sizes of a compilation.

workload    the sizes that the graph is cut for
pools       room of a decoder for texts
pool_sizes  the pages of a text, and of so many texts
"""
