"""Nodes and values of one program: what a stage receives and sends follows from the nodes that it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from runtime.manifest.manifest import FILE, ModelNode, ProgramEntry, ProgramStage, Tensor


def check_flow(program: ProgramEntry) -> Iterator[str]:
    nodes = {node.makes[0].name: node for node in program.nodes}
    types = {t.name: t for t in (*program.inputs, *(t for node in program.nodes for t in node.makes))}
    yield from _check_nodes(program, nodes)
    for i, stage in enumerate(program.stages):
        yield from (f"stage {i}: {fault}" for fault in _check_order(stage, nodes))
        yield from (f"stage {i}: {fault}" for fault in _check_values(stage, program, types))
    yield from _check_transfers(program)
    yield from _check_outputs(program)


def made_and_read(stage: ProgramStage, program: ProgramEntry) -> tuple[set[str], set[str]]:
    """The values that the nodes of a stage make, and those that they read."""
    runs = {run.node for run in stage.runs}
    nodes = [node for node in program.nodes if node.makes[0].name in runs]
    return {t.name for node in nodes for t in node.makes}, {value for node in nodes for value in node.reads}


def _check_nodes(program: ProgramEntry, nodes: dict[str, ModelNode]) -> Iterator[str]:
    """Each node of the model runs once, or once in each of several stages where it repeats."""
    if len(nodes) != len(program.nodes) or not nodes:
        yield f"{FILE}: it lists {len(program.nodes)} nodes of the model, of which {len(nodes)} differ"
    stages: dict[str, list[int]] = {name: [] for name in nodes}
    for i, run in ((i, run) for i, stage in enumerate(program.stages) for run in stage.runs):
        stages.setdefault(run.node, []).append(i)
        if run.node not in nodes or run.digest != nodes[run.node].digest:
            yield f"stage {i}: it runs {run.node}, which the model does not have, or has with other arguments"
    for name, node in nodes.items():
        if not stages[name] or len(stages[name]) > (len({*stages[name]}) if node.repeats else 1):
            yield f"{FILE}: {name} = {node.op}({', '.join(node.reads)}) must run once, not in stages {stages[name]}"


def _check_order(stage: ProgramStage, nodes: dict[str, ModelNode]) -> Iterator[str]:
    """Faults of order: a value that a node reads is received, held, or made before it."""
    known = {*(receive.tensor.name for receive in stage.receives), *(held.weight for held in stage.holds.values())}
    for node in (nodes[run.node] for run in stage.runs if run.node in nodes):
        yield from (f"{node.makes[0].name} reads {v}, which is not there yet" for v in node.reads if v not in known)
        known.update(t.name for t in node.makes)


def _check_values(stage: ProgramStage, program: ProgramEntry, types: dict[str, Tensor]) -> Iterator[str]:
    """A stage receives what its nodes need, sends what they make, each once and of its type, and updates its states."""
    made, read = made_and_read(stage, program)
    needed = read - made - {held.weight for held in stage.holds.values()}
    sent = made & {send.tensor.name for send in stage.sends if send.stages or send.outputs}
    for verb, ends, wanted in (("receives", stage.receives, needed), ("sends", stage.sends, sent)):
        found, right = Counter(end.tensor for end in ends), Counter(types[name] for name in wanted if name in types)
        for tensor in (found - right) + (right - found):
            yield f"it {verb} {tensor}, which its nodes do not {'read' if ends is stage.receives else 'make'} as that"
    for name in (name for name in stage.state if name in stage.holds):
        new, becomes = program.updates.get(stage.holds[name].weight, ""), stage.holds[name].becomes
        if becomes != new or becomes not in made | {""}:
            yield f"it does not give the state {name} its next value {new}"


def _check_transfers(program: ProgramEntry) -> Iterator[str]:
    """Each transfer has both ends, and what no stage sends is an input."""
    stages, edges = [*enumerate(program.stages)], Counter[tuple[str, int | None, int]]
    received = edges((r.tensor.name, r.source, i) for i, stage in stages for r in stage.receives)
    sent = edges((s.tensor.name, i, to) for i, stage in stages for s in stage.sends for to in s.stages)
    given = edges((tensor.name, None, i) for tensor in program.inputs for i, _ in stages)
    for name, source, i in received - sent - given:
        where = "no input is" if source is None else f"stage {source} does not send"
        yield f"stage {i}: it receives {name}, which {where}"
    for name, i, to in sent - received:
        yield f"stage {i}: it sends {name} to stage {to}, which receives it from elsewhere or not at all"


def _check_outputs(program: ProgramEntry) -> Iterator[str]:
    """Each output is sent once, as the value that the model returns there."""
    sends = [send for stage in program.stages for send in stage.sends]
    sent = sorted((i, send.tensor.name, send.tensor.dtype, send.tensor.shape) for send in sends for i in send.outputs)
    outputs = zip(program.returns, program.outputs, strict=False)
    wanted = [(i, name, tensor.dtype, tensor.shape) for i, (name, tensor) in enumerate(outputs)]
    if sent != wanted or len(wanted) != len(program.outputs) or len(wanted) != len(program.returns):
        yield f"{FILE}: the outputs {wanted} are sent as {sent}"
