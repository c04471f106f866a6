"""A good cut at once: dynamic programs over the prefixes of several orders of the units.

From the order of the units to the cut:

    orders      promising topological orders of the units
    sweep       the cost of every interval of one order
    seats       devices in their places along the pipeline, and the price of an interval there
    chain       the best cut of one order into the intervals of the seats
    first_cut   the best of these over several orders of units and of devices
    ring        the same where the first and the last stage share a device
    thrift      among cuts of equal bottleneck, one that transfers less
    lattice     the cost of every stage of a small program, whatever the order
    plain       among cuts that are nearly as good, the one that is plainest to read and to run
"""
