"""Plan -> artifact folder: readable stage files, sliced weights, a picture, a report and the manifest.

In the order in which a plan meets them:

    folder        the output folder: checked, filled beside its place, moved there whole
    artifact      the files of the folder
    manifest      the manifest of what was written
    structure/    a stage as statements, classes that repeat, and loops
    spelling/     operators, literals, paths and modules as Python expressions
    lines/        the plan of a stage file: every line, as data
    text/         the plan as source
    own_files     the user's own Python files that stages import
    weights       the .safetensors file of a stage
    inventory     the nodes and weights of the model and of each stage, for `stagecut check`
    picture/      the graph as boxes, for Graphviz
    report/       one page about the plan and its runs
    pytree_json   the containers of the model's arguments and results, for the manifest
"""
