"""The artifact folder: what is in it, and how it comes to its place.

In the order in which a plan meets them:

    folder       the output folder: checked, filled beside its place, moved there whole
    artifact     the files of the folder
    own_files    the user's own Python files that stages import
    weights      the .safetensors file of a stage
    graph_file   the graph before the cut, and tensors that no stage holds
    cut_again    an artifact as the source of another cut
    added_adapters  adapters that an artifact gets once it is written
    export       the weights of all stages as one checkpoint
    manifest     the manifest of what was written, and that of an artifact as a source
    inventory    the nodes and weights of the model and of each stage, for `stagecut check`
    pytree_json  the containers of the model's arguments and results, for the manifest
"""
