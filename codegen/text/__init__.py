"""The source of a stage file, printed from its plan.

In the order in which a plan meets them:

    stage_source    a stage -> its source, and the line of each node
    printer         planned classes and lines as source lines
    helpers         classes and functions that a file brings along, and files that it imports
    joined_files    the text of such a file, made of several of ours
    header          the docstring, the imports and the tables at the top
    weight_reader   the functions at the bottom, which read the weights
    formatting      the layout by `ruff format`
"""
