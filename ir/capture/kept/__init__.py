"""Graphs that are kept from one run to the next, so that a second plan of a model need not export it.

The files:

    fingerprint  what a capture depends on, as one number
    store        the folder of kept graphs
    once         capture() that looks there first
"""
