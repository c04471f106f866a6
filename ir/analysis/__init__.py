"""Functions of a graph: what it means, what it needs, whether it is sound.

The files:

    verify          invariants of a graph; an error shows its culprit in the text
    arguments       the arguments of an operator: tensors for values, numbers for sizes
    interpret       a run of the graph, node by node: the meaning that every pass keeps
    bind            the graph for given values of its sizes
    index_ranges    the values that inputs may have which index tables
    programs        several programs as one graph, and one of them as a graph of its own
    dead_code       the graph without nodes that nothing needs
    pools           the pools of a decoder: zeros, changed in place
    memory          bytes that a stage needs
    called_modules  the modules that it calls: their nodes, and those that a cut parts
    random_numbers  whether a run of it, or a call in it, draws random numbers
    borders         names of values that cross between stages
"""
