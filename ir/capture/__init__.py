"""nn.Module -> Graph; with ir.sources the only place that knows torch.export and torch.fx.

From a model to its graph, in the order in which data meets them:

    model        capture(): the way through the rooms below
    paths        paths of modules and source files, as a user knows them
    holdable     weights and inputs that stages can hold
    loops/       loops over a size that may change, recorded as scans
    sizes/       the sizes that may change: their names, what the model asks of them, what must hold of them
    diagnosis    torch.export's error -> the module, the line and what usually helps
    lazy         tensors that are recorded when traced code reads them
    packed/      several things one after the other in one tensor, of sizes that are values of an input
    stored_weights/  quantized weights, recorded as plain ones and written out in the graph
    source_lines/  module path, source line and variable of a node
    program/     ExportedProgram -> Graph
    with_states  a recording in which attributes that forward changes are state, as far as they can be
    unregistered_state/  what a model keeps from call to call outside of buffers
    export/      a model and an example call -> ExportedProgram
    checks/      does the graph compute what the model does, on other inputs and at sizes of 1
    kept/        graphs that are kept from one run to the next
    warn         warnings at the user's line
    repeats/     layers that are alike, recorded once a kind
    fallbacks/   other ways to record a model that torch.export does not take as it is
"""

from ir.capture.model import capture
from ir.capture.sizes.dynamic import DynamicShapes

__all__ = ["DynamicShapes", "capture"]
