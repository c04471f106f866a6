"""Programs, machines and plans: the types that passes and codegen share.  Imports nothing of ours.

From a source to a plan, in the order in which data meets them:

    errors       the exceptions raised on purpose, one class for each culprit
    units        bytes, counts and seconds, read and written
    location     module path and source line of a node
    sizes        sizes as expressions over symbols; tensor types
    containers   classes of arguments and results that torch does not take apart; the keys of all containers
    signature    the nested containers of a model's arguments and results
    operators    facts about torch's operators that their schemas do not tell
    registration operators from outside torch: the module and library that register them
    recipe       a serializable recipe that rebuilds a Python object
    opaque       a module that is kept whole, and the operator that runs it
    machine/     devices, links and clusters
    cost         cost of a node on any machine, its time on a device, the loads that add up from these
    microbatching  the dimensions along which a batch may be split
    graph        the program: values, nodes and the graph they form
    checkpoint/  tensors on disk, under the names of the model
    interpret    a run of the graph, node by node: the meaning that every pass keeps
    dead_code    the graph without nodes that nothing needs
    bind         the graph for given values of its sizes
    capture/     nn.Module -> Graph
    sources/     a model file, a checkpoint folder or a .pt2 -> the model, its example inputs and weights
    printer      the graph as text
    verify       invariants of a graph; an error shows its culprit in the text
    memory       bytes that a stage needs
    borders      names of values that cross between stages
    plan         the graph cut into stages
    text_table   small tables as text and HTML, for the plan's repr
    summary      the numbers of a plan: sizes, seconds and transfers of its stages
"""
