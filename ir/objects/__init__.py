"""Python's objects around a graph: arguments, results, and modules that are kept whole.

The files:

    containers     classes of arguments and results that torch does not take apart; the keys of all containers
    named_classes  containers of graphs that are read again, whose classes need not be imported
    signature      the nested containers of a model's arguments and results
    nested         the lists, tuples and dicts of a node's arguments
    recipe         a serializable recipe that rebuilds a Python object
    pieces         large tensors piece by piece, to compare them
    zeros          zeros that take no memory until they are written to
    opaque         a module that is kept whole, and the operator that runs it
"""
