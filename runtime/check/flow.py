"""Nodes and values of one program: the manifest lists those of the uncut model, and those of each stage."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.manifest import FILE, ModelNode, ProgramEntry, ProgramStage, Tensor


def check_flow(program: ProgramEntry) -> Iterator[str]:
    nodes = {node.makes[0].name: node for node in program.nodes}
    types = {t.name: t for t in (*program.inputs, *(t for node in program.nodes for t in node.makes))}
    yield from _check_nodes(program, nodes)
    for i, stage in enumerate(program.stages):
        yield from (f"stage {i}: {fault}" for fault in _check_order(stage, nodes))
        yield from (f"stage {i}: {fault}" for fault in _check_ends(i, program, types))
    yield from _check_outputs(program)
    yield from _check_states(program)


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
    """What a node reads is received, held, or made before it."""
    known = {*(receive.tensor.name for receive in stage.receives), *(held.weight for held in stage.holds.values())}
    for node in (nodes[run.node] for run in stage.runs if run.node in nodes):
        yield from (f"{node.makes[0].name} reads {v}, which is not there yet" for v in node.reads if v not in known)
        known.update(t.name for t in node.makes)


def _check_ends(i: int, program: ProgramEntry, types: dict[str, Tensor]) -> Iterator[str]:
    """What stage `i` sends and receives has another end, the type that the model gives it, and a use."""
    stage, inputs = program.stages[i], {tensor.name for tensor in program.inputs}
    made, read = made_and_read(stage, program)
    sent = {(send.tensor.name, j, to) for j, s in enumerate(program.stages) for send in s.sends for to in send.stages}
    received = {(r.tensor.name, r.source, j) for j, s in enumerate(program.stages) for r in s.receives}
    for receive in stage.receives:
        name, source = receive.tensor.name, receive.source
        if name not in inputs if source is None else (name, source, i) not in sent:
            yield f"it receives {name}, which {'no input is' if source is None else f'stage {source} does not send'}"
        if name not in read:
            yield f"it receives {name}, which none of its nodes reads"
    for send in stage.sends:
        name = send.tensor.name
        if name not in made or not (send.stages or send.outputs):
            yield f"it sends {name}, which {'goes nowhere' if name in made else 'it does not make'}"
        if lost := [j for j in send.stages if (name, i, j) not in received]:
            yield f"it sends {name} to {lost}, which receive it from elsewhere or not at all"
    for ends in (stage.receives, stage.sends):
        tensors = [end.tensor for end in ends]
        yield from (f"the model has {types.get(t.name)}, not {t}" for t in tensors if types.get(t.name) != t)
        yield from (f"it sends or receives {t.name} twice" for t in {*tensors} if tensors.count(t) > 1)


def _check_outputs(program: ProgramEntry) -> Iterator[str]:
    """Each output is sent once, as the value that the model returns there."""
    sends = [send for stage in program.stages for send in stage.sends]
    sent = sorted((i, send.tensor.name, send.tensor.dtype, send.tensor.shape) for send in sends for i in send.outputs)
    outputs = zip(program.returns, program.outputs, strict=False)
    wanted = [(i, name, tensor.dtype, tensor.shape) for i, (name, tensor) in enumerate(outputs)]
    if sent != wanted or len(wanted) != len(program.outputs) or len(wanted) != len(program.returns):
        yield f"{FILE}: the outputs {wanted} are sent as {sent}"


def _check_states(program: ProgramEntry) -> Iterator[str]:
    """A state that a stage holds gets its next value there."""
    for i, stage in enumerate(program.stages):
        made = made_and_read(stage, program)[0] | {""}
        for name in (name for name in stage.state if name in stage.holds):
            new, becomes = program.updates.get(stage.holds[name].weight, ""), stage.holds[name].becomes
            if becomes != new or becomes not in made:
                yield f"stage {i}: it does not give the state {name} its next value {new}"
