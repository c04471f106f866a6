"""Graphs, tables and numbers as text.

The files:

    units    bytes, counts and seconds, read and written
    table    small tables as text and HTML, for the plan's repr
    printer  the graph as text
"""
