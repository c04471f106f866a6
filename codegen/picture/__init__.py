"""Pictures of a plan: its modules as boxes, by stage.

In the order in which a plan meets them:

    detail     the levels of detail
    grouping   operators grouped to modules, few enough for a screen
    boxes      the boxes with the words on them
    palette    a colour for each stage
    machines   a comparison of machines, as SVG
    dot        the picture as Graphviz source, and as SVG
"""
