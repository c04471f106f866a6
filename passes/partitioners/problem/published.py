"""The published JSON format of instances.

Tarnawski et al.: "Efficient algorithms for device placement of DNN graph operators", NeurIPS 2020.
"""

from __future__ import annotations

import json
from collections import defaultdict
from os import PathLike
from pathlib import Path
from typing import Any

from passes.partitioners.problem.errors import InvalidProblem
from passes.partitioners.problem.objective import Objective
from passes.partitioners.problem.parts import Device, Link, Node, Value

ACCELERATOR, CPU = 0, 1


def fields(path: str | PathLike[str], objective: Objective) -> dict[str, Any]:
    """The fields of a Problem, from a file.  Raises InvalidProblem if it is not in the format.

    Costs of edges in a file are seconds; here they are bytes, over links of bandwidth 1. Where the time of one sample
    is asked for, the CPUs of a file are one device that runs node by node, and values go through its memory.
    """
    try:
        document = json.loads(Path(path).read_text())
        return _fields(document, objective)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidProblem(f"{path} is not a published partitioning instance: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    match error:
        case KeyError():
            return f"it lacks {error}"
        case json.JSONDecodeError():
            return "it is no JSON"
    return str(error)


def _fields(document: dict[str, Any], objective: Objective) -> dict[str, Any]:
    nodes, edges = document["nodes"], document["edges"]
    if not nodes:
        raise ValueError("it has no nodes")
    ids = [int(node["id"]) for node in nodes]
    index = {id: i for i, id in enumerate(ids)}
    pairs = [(index[edge["sourceId"]], index[edge["destId"]]) for edge in edges]

    readers: dict[int, dict[int, None]] = defaultdict(dict)
    cost: dict[int, float] = {}
    for (source, target), edge in zip(pairs, edges, strict=True):
        readers[source][target] = None
        cost[source] = max(cost.get(source, 0.0), float(edge["cost"]))

    classes: dict[object, list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        classes[node.get("colorClass", ("alone", i))].append(i)

    return dict(
        nodes=tuple(_node(node) for node in nodes),
        values=tuple(Value(source, tuple(to), bytes=cost[source]) for source, to in readers.items()),
        groups=tuple(tuple(members) for members in classes.values() if len(members) > 1),
        devices=(
            *(Device(float(document["maxSizePerFPGA"]), ACCELERATOR) for _ in range(int(document["maxFPGAs"]))),
            *_cpus(int(document["maxCPUs"]), objective),
        ),
        link=Link(bandwidth=1.0),
        precedence=_forward(nodes, pairs, list(classes.values())) if objective.of_loads else None,
        objective=objective,
        via_host=not objective.of_loads,
        ids=tuple(ids),
    )


def _cpus(count: int, objective: Objective) -> tuple[Device, ...]:
    if objective.of_loads:
        return (Device(kind=CPU, free_transfers=True),) * count
    return (Device(kind=CPU, free_transfers=True, node_by_node=True),)


def _node(node: dict[str, Any]) -> Node:
    accelerator = float(node["fpgaLatency"]) if node["supportedOnFpga"] else float("inf")
    return Node((accelerator, float(node["cpuLatency"])), bytes=float(node["size"]), name=str(node.get("name", "")))


def _forward(
    nodes: list[dict[str, Any]], pairs: list[tuple[int, int]], classes: list[list[int]]
) -> tuple[tuple[int, int], ...]:
    """The precedence among forward nodes.

    A colour class of backward nodes only represents a forward node, with its edges mirrored: its successors in
    the backward pass are its predecessors in the forward pass.
    """
    backward = [bool(node.get("isBackwardNode", False)) for node in nodes]
    alone = {i for members in classes if all(backward[i] for i in members) for i in members}
    kept = [(a, b) for a, b in pairs if not backward[a] and not backward[b]]
    mirrored = [(b, a) for a, b in pairs if backward[a] and backward[b] and (a in alone or b in alone)]
    return tuple(kept + mirrored)
