"""The value of a split, computed from the problem and the split alone.

Tests rely on it: plain loops over the fields of the problem, sharing nothing with the solvers.

Throughput: the largest load of any device. A device computes its nodes; it receives each value made on
another device that it reads, once; it sends each value it makes that others read, once, at the pace of
the slowest link taken. Its load is the sum of the three, or the largest where transfers overlap compute.

Latency: when the last call ends. A call is a stage, or a node of a device that runs node by node. A call starts when
every call it receives from has ended (and the device of its stage is free), receives its values one after another,
computes, and with `via_host` sends its values one after another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
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

    A stage whose nodes are calls of their own comes where the first of them does. Raises InvalidSplit where the stages
    wait for each other in a circle.
    """
    calls = call_order(problem, call_numbers(problem, stages))
    return list(dict.fromkeys(call if call < problem.n_stages else stages[call - problem.n_stages] for call in calls))


def call_numbers(problem: Problem, stages: Sequence[int]) -> list[int]:
    """The call of each node: its stage, or one of its own, from `n_stages` on, where its device runs node by node."""
    alone = [problem.devices[problem.device_of(stage)].node_by_node for stage in range(problem.n_stages)]
    return [problem.n_stages + node if alone[stage] else stage for node, stage in enumerate(stages)]


def call_order(problem: Problem, calls: Sequence[int]) -> list[int]:
    """The calls, each after those it follows; of several such orders the one by number."""
    followers: dict[int, set[int]] = {call: set() for call in calls}
    for a, b in problem.before:
        if calls[a] != calls[b]:
            followers[calls[a]].add(calls[b])
    waiting = dict.fromkeys(followers, 0)
    for later in followers.values():
        for call in later:
            waiting[call] += 1
    ready = [call for call, count in waiting.items() if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        order.append(heappop(ready))
        for call in followers[order[-1]]:
            waiting[call] -= 1
            if not waiting[call]:
                heappush(ready, call)
    if len(order) < len(followers):
        circle = sorted(call for call in followers.keys() - set(order) if call < problem.n_stages)
        raise InvalidSplit(f"stages {circle} wait for each other in a circle")
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
        home, slowest = device[value.producer], 0.0
        for there in {device[node] for node in value.consumers}:
            if there != home:
                seconds = problem.between(home, there).seconds(value.bytes)
                receive[there] += seconds
                slowest = max(slowest, seconds)
        send[home] += slowest
    for stage, peak in peaks(problem, stages).items():
        memory[problem.device_of(stage)] += problem.in_flight * peak
    return tuple(
        Load(compute[d], *((0.0, 0.0) if problem.devices[d].free_transfers else (receive[d], send[d])), memory[d])
        for d in everywhere
    )


def _latency(problem: Problem, stages: Sequence[int]) -> float:
    calls = call_numbers(problem, stages)
    lasts: dict[int, float] = defaultdict(float)
    for node, stage, call in zip(problem.nodes, stages, calls, strict=True):
        lasts[call] += node.time[problem.devices[problem.device_of(stage)].kind]
    sources: dict[int, set[int]] = defaultdict(set)
    for value in problem.values:
        home = stages[value.producer]
        takers = {calls[node]: stages[node] for node in value.consumers if calls[node] != calls[value.producer]}
        for call, stage in takers.items():
            sources[call].add(calls[value.producer])
            lasts[call] += _seconds(problem, home, stage, value.bytes, paying=stage)
        if problem.via_host and takers:
            sent = (_seconds(problem, home, stage, value.bytes, paying=home) for stage in takers.values())
            lasts[calls[value.producer]] += max(sent)
    ended: dict[int, float] = {}
    free: dict[int, float] = defaultdict(float)
    for call in call_order(problem, calls):
        device = problem.device_of(call) if call < problem.n_stages else -call  # none that another call needs
        start = max([free[device], *(ended.get(source, 0.0) for source in sources[call])])
        ended[call] = free[device] = start + lasts[call]
    return max(ended.values(), default=0.0)


def _seconds(problem: Problem, home: int, stage: int, size: float, paying: int) -> float:
    """Seconds of a value's way from one stage to another; none on a device, or for a stage whose transfers are free."""
    source, target = problem.device_of(home), problem.device_of(stage)
    if source == target or problem.devices[problem.device_of(paying)].free_transfers:
        return 0.0
    return problem.between(source, target).seconds(size)
