"""A graph and what the user wants of its cut, as a problem for the partitioners.

cut_problem  the nodes, what they cost and what they send; for split-stages and check-sizes
named_cuts   cuts where the user wants them: between modules, or before those that are named
"""
