"""A graph and what the user wants of its cut, as a problem for the partitioners.

cut_problem  the nodes, what they cost and what they send; for split-stages and check-sizes
largest_room the pages of a decoder where nobody says how many: as many as cost the cut next to nothing
named_cuts   cuts where the user wants them: between modules, or before those that are named
"""
