"""Graphs, tables and numbers as text.

The files:

    call_sizes  the sizes of calls, and shares of them
    expressions sizes and conditions on them, as Python
    units       bytes, counts and seconds, read and written
    names       the first of some names
    table       small tables as text and HTML, for the plan's repr
    printer     the graph as text
"""
