"""One compilation, from a source and options to an artifact.

From the outside in, then in the order of the work:

    api       `compile_model`: a model to an artifact
    auto      `auto_partition`: a model to a running pipeline
    compare   `compare_machines`: a model to plans for several machines
    job       a compilation as its options ask for it, with what it prints
    given     its source
    target    the machine that it is planned for
    programs  the calls of a source -> one graph
    sizes/    the sizes that the graph is cut for, and room of a decoder for texts
    padding   rows of different lengths in one batch, tried on the finished graph
    rounding  differences of results that rounding explains
    compiler  source -> capture -> passes -> plan -> artifact
    changes   the difference between two graphs, in words
    summary   a plan in numbers
"""
