"""Plan -> artifact folder: readable stage files, sliced weights, a picture, a report and the manifest.

In the order in which a plan meets them:

    artifact/     the output folder: its files, weights and manifest
    structure/    a stage as statements, classes that repeat, and loops
    spelling/     operators, literals, paths and modules as Python expressions
    lines/        the plan of a stage file: every line, as data
    text/         the plan as source
    picture/      the graph as boxes, for Graphviz
    report/       one page about the plan and its runs
"""
