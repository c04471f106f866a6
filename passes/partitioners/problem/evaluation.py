"""The value of a split, computed from the problem and the split alone.

Tests rely on it: plain loops over the fields of the problem, sharing nothing with the solvers.

Throughput: the largest load of any device. A device computes its nodes; it receives each value made on
another device that it reads, once; it sends each value it makes that others read, once, at the pace of
the slowest link taken. Its load is the sum of the three, or the largest where transfers overlap compute.

Latency: when the last stage ends. A stage starts when every stage it receives from has ended (and its
device is free), receives its values one after another, and computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isinf

from passes.partitioners.problem.copies import inline
from passes.partitioners.problem.errors import InvalidSplit, named, readable
from passes.partitioners.problem.memory import peaks
from passes.partitioners.problem.model import Load, Problem
from passes.partitioners.problem.objective import Objective

TOLERANCE = 1e-9


def evaluate(problem: Problem, stage_of: Mapping[int, int] | Sequence[int]) -> float:
    """The value of a split, in seconds. `stage_of` maps the id of each node to its stage.

    Raises InvalidSplit for a stage that does not exist, a cycle among stages, a group on two devices,
    a node on a device that cannot run it, too little memory, or an idle device where none may be.
    """
    problem = inline(problem)
    stages = [stage_of[name] for name in problem.names]
    found = checked(problem, stages)
    match problem.objective:
        case Objective.throughput:
            return max(load.seconds(problem.overlap) for load in found)
        case Objective.latency:
            return _latency(problem, stages)


def checked(problem: Problem, stages: Sequence[int]) -> tuple[Load, ...]:
    """The load of each device, for a problem without copies.  Raises InvalidSplit where stages break a rule."""
    for name, stage in zip(problem.names, stages, strict=True):
        if not 0 <= stage < problem.n_stages:
            raise InvalidSplit(f"node {name} is in stage {stage}; there are {problem.n_stages}")
    for group in problem.groups:
        on = {problem.device_of(stages[node]) for node in group}
        if len(on) > 1:
            raise InvalidSplit(f"the group of {_called(problem, group)} is split over devices {sorted(on)}")
    order = pipeline_order(problem, stages)
    if problem.fixed_order and order != sorted(order):
        raise InvalidSplit(f"the stages run in the order {order}; the devices are to be used as listed")
    idle = set(range(len(problem.devices))) - {problem.device_of(stage) for stage in order}
    if problem.every_device and idle:
        raise InvalidSplit(f"devices {sorted(idle)} hold no node")
    found = loads(problem, stages)
    for number, (device, load) in enumerate(zip(problem.devices, found, strict=True)):
        if isinf(load.compute):
            culprits = _unsupported(problem, stages, number)
            raise InvalidSplit(f"{_called(problem, culprits)} cannot run on device {number}")
        if load.memory > device.memory * (1 + TOLERANCE):
            raise InvalidSplit(f"device {number} needs {readable(load.memory)} of its {readable(device.memory)}")
    return found


def _called(problem: Problem, nodes: Sequence[int]) -> str:
    return named(tuple(problem.names[node] for node in nodes))


def _unsupported(problem: Problem, stages: Sequence[int], device: int) -> tuple[int, ...]:
    kind = problem.devices[device].kind
    here = (node for node, stage in enumerate(stages) if problem.device_of(stage) == device)
    return tuple(node for node in here if isinf(problem.nodes[node].time[kind]))


def pipeline_order(problem: Problem, stages: Sequence[int]) -> list[int]:
    """The stages in use, each after those it follows; of several such orders the one by stage number.

    Raises InvalidSplit where the stages wait for each other in a circle.
    """
    after: dict[int, set[int]] = {stage: set() for stage in stages}
    for a, b in problem.before:
        if stages[a] != stages[b]:
            after[stages[b]].add(stages[a])
    order: list[int] = []
    while after:
        ready = [stage for stage, earlier in after.items() if earlier.isdisjoint(after)]
        if not ready:
            raise InvalidSplit(f"stages {sorted(after)} wait for each other in a circle")
        order.append(min(ready))
        del after[order[-1]]
    return order


def loads(problem: Problem, stages: Sequence[int]) -> tuple[Load, ...]:
    """The load of each device; the problem has no copies left (see `inline`)."""
    device = [problem.device_of(stage) for stage in stages]
    everywhere = range(len(problem.devices))
    compute, receive, send, memory = ([0.0 for _ in everywhere] for _ in range(4))
    for node, here in zip(problem.nodes, device, strict=True):
        compute[here] += node.time[problem.devices[here].kind]
        memory[here] += node.bytes
    for weight in problem.weights:
        for here in {device[node] for node in weight.readers}:
            memory[here] += weight.bytes
    for value in problem.values:
        home = device[value.producer]
        takes = {
            there: problem.between(home, there).seconds(value.bytes)
            for there in {device[node] for node in value.consumers}
            if there != home
        }
        for there, seconds in takes.items():
            receive[there] += seconds
        send[home] += max(takes.values(), default=0.0)
    for stage, peak in peaks(problem, stages).items():
        memory[problem.device_of(stage)] += problem.in_flight * peak
    return tuple(
        Load(compute[d], *((0.0, 0.0) if problem.devices[d].free_transfers else (receive[d], send[d])), memory[d])
        for d in everywhere
    )


def _latency(problem: Problem, stages: Sequence[int]) -> float:
    compute: dict[int, float] = defaultdict(float)
    for node, stage in zip(problem.nodes, stages, strict=True):
        compute[stage] += node.time[problem.devices[problem.device_of(stage)].kind]
    receive: dict[int, float] = defaultdict(float)
    sources: dict[int, set[int]] = defaultdict(set)
    for value in problem.values:
        home = stages[value.producer]
        for stage in {stages[node] for node in value.consumers} - {home}:
            sources[stage].add(home)
            receive[stage] += _seconds(problem, home, stage, value.bytes)
    ended: dict[int, float] = {}
    free: dict[int, float] = defaultdict(float)
    for stage in pipeline_order(problem, stages):
        device = problem.device_of(stage)
        start = max([free[device], *(ended.get(source, 0.0) for source in sources[stage])])
        ended[stage] = free[device] = start + receive[stage] + compute[stage]
    return max(ended.values(), default=0.0)


def _seconds(problem: Problem, home: int, stage: int, size: float) -> float:
    source, target = problem.device_of(home), problem.device_of(stage)
    if source == target or problem.devices[target].free_transfers:
        return 0.0
    return problem.between(source, target).seconds(size)
