"""Programs, machines and plans: the types that passes and codegen share.  Imports nothing of ours.

From a source to a plan, in the order in which data meets them:

    process/      copies of this process that share its work, what it patches, the folder of what it keeps
    errors        the exceptions raised on purpose, one class for each culprit
    location      module path and source line of a node
    sizes         sizes as expressions over symbols; tensor types
    operators/    what operators' schemas do not tell; operators that run functions, and those from outside torch
    objects/      Python's objects around a graph: arguments, results, modules that are kept whole
    machine/      devices, links and clusters
    cost          cost of a node on any machine, its time on a device, the loads that add up from these
    microbatching the dimensions along which a batch may be split
    autocast      autocast of the caller, and graphs without it
    decoding      how a decoder continues texts
    graph         the program: values, nodes and the graph they form
    fused/        functions of pointwise operators as one kernel, and the nodes that can be one
    paged/        attention over a decoder's pages, and its operator
    quantized_linear/  linear layers over quantized weights, and their operator
    checkpoint/   tensors on disk, under the names of the model
    capture/      nn.Module -> Graph
    sources/      a model file, a checkpoint folder or a .pt2 -> the model, its example inputs and weights
    analysis/     functions of a graph: its meaning, invariants, memory, borders
    serialized/   graphs as plain JSON, and back
    text/         graphs, tables and numbers as text
    plan          the graph cut into stages
    numbers/      plans in numbers: one, and those for several machines side by side
"""
