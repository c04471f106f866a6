"""Graphs as plain JSON, and back: reading one runs no code and imports no library of the model.

The files:

    leaves       what is written in place: numbers, dtypes, operators, classes
    expressions  sizes and conditions
    rows         a table of objects, each once
    graph_table  the graph of a source, with what cutting it again needs
"""
