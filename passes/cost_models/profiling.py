"""Measurement of each distinct operator of a graph on the devices of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from ir.analysis.arguments import as_number, operator_arguments
from ir.cost import FREE, Measured, Time
from ir.errors import PlanError
from ir.graph import Call, Constant, Graph, Node, Param, State, Transfer, Value
from ir.machine.cluster import Cluster
from ir.machine.host import device_here
from ir.sizes import TensorType
from passes.cost_models.predictions import Predictions
from passes.cost_models.stopwatch import Operands, Stopwatch, stopwatch
from passes.cost_models.traffic import each_once

Key = tuple[Hashable, ...]
Progress = Callable[[str], object]

_INTERVAL = 1.0  # seconds between two lines about the progress


def profile(graph: Graph, cluster: Cluster, progress: Progress) -> Graph:
    """The graph with the time of each node on each kind of device.

    Raises PlanError for a device that is not here, and for an operator that does not run on one.
    """
    predicted, kinds = Predictions(graph), {d.kind: d for d in reversed(cluster.devices)}
    here = {kind: device_here(device.name) for kind, device in kinds.items()}
    measured: dict[Node, tuple[Measured, ...]] = {}
    for kind, device in here.items():
        shares = sum(device_here(d.name) == device for d in cluster.devices)
        with stopwatch(device, _dtype(graph, predicted), kind.threads, shares) as watch:
            run = _Run(graph, watch)
            for node, time in zip(graph.nodes, _reported(run.times(), graph, device, progress), strict=True):
                if time is not None:
                    time = _in_kernel(node, time, predicted)
                    measured[node] = (*measured.get(node, ()), Measured(kind, predicted.cost(node), time))
    return graph.map(lambda node: replace(node, measured=measured.get(node, ())))


def _in_kernel(node: Node, time: Time, predicted: Predictions) -> Time:
    """The part of a kernel's time that is a node's: of its time alone, the share of the bytes that it still moves."""
    if not isinstance(node, Call) or not node.kernel:
        return time
    alone, cost = predicted.number(each_once(node, {})), predicted.cost(node)
    share = float(cost.bytes) / alone if alone else 0.0  # of no columns, as those of a head that are not rotated
    return Time(time.device * share, time.host * cost.launches)


def _dtype(graph: Graph, predicted: Predictions) -> torch.dtype:
    """The dtype of the node with the most flops."""
    return max((predicted.cost(n) for n in graph.nodes), key=lambda cost: cost.flops, default=FREE).arithmetic.dtype


def _reported(
    times: Iterator[Time | None], graph: Graph, device: torch.device, progress: Progress
) -> Iterator[Time | None]:
    """The same times, with a line about the progress now and then."""
    last = perf_counter()
    for i, time in enumerate(times, start=1):
        if perf_counter() - last > _INTERVAL:
            last = perf_counter()
            progress(f"timed {i} of {len(graph.nodes)} operators on {device}")
        yield time


@dataclass
class _Run:
    """A run of the graph node by node, with random weights that exist for one operator at a time.

    A node with the same key as an earlier one is not run again: it gets the time and the results of that one.
    """

    graph: Graph
    watch: Stopwatch
    known: dict[Key, tuple[Time, list[Any]]] = field(default_factory=dict)
    values: dict[Value, torch.Tensor] = field(default_factory=dict)

    def times(self) -> Iterator[Time | None]:
        """The time of each node; None for a transfer."""
        last = {value: node for node in self.graph.nodes for value in node.operands}
        with torch.no_grad():
            for node in self.graph.nodes:
                yield self._time(node)
                for value in {*node.operands, *node.results}:
                    if last.get(value, node) is node:
                        self.values.pop(value, None)

    def _time(self, node: Node) -> Time | None:
        if isinstance(node, Transfer):
            self.values[node.results[0]] = self._value(node.value)
            return None
        key = self._key(node)
        if key not in self.known:
            try:
                self.known[key] = self._measure(node)
            except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError) as e:
                where = f"{node.results[0].name} = {node.op} cannot be timed on {self.watch.device}"
                raise PlanError(f"{where}: {e}; --cost roofline predicts its time", node) from e
        time, results = self.known[key]
        self.values.update(zip(node.results, results, strict=True))
        return time

    def _measure(self, node: Call) -> tuple[Time, list[Any]]:
        weights: dict[Value, torch.Tensor] = {v: self._made_up(v) for v in node.operands if isinstance(v, Param)}
        warm = [self._value(v) for v in node.operands if v not in weights]
        args, kwargs = self._arguments(node, lambda v: weights[v] if v in weights else self.values[v])
        if node.op.name() == "aten::embedding":  # rows from all over the table
            args = (args[0], torch.randint_like(args[1], args[0].shape[0]), *args[2:])
        out = node.op(*args, **kwargs)
        time = self.watch.time(lambda: node.op(*args, **kwargs), Operands(warm, list(weights.values())))
        return (Time(0.0, time.host) if node.view and time.host else time), list(out) if node.unpacks else [out]

    def _value(self, value: Value) -> torch.Tensor:
        """The tensor of a value; inputs, constants and states are made when they are first read."""
        if value not in self.values:
            self.values[value] = self._made_up(value)
        return self.values[value]

    def _made_up(self, value: Value) -> torch.Tensor:
        """A tensor for a leaf: its data if it has any, small random floats, or ones (a valid index, and unmasked)."""
        if isinstance(value, (Constant, State)) and value.data is not None:
            return value.data.to(self.watch.device)
        shape, dtype = self._type(value.type)
        drawn = torch.float32 if dtype.is_floating_point and dtype.itemsize == 1 else dtype  # torch draws no float8
        made = torch.empty(shape, dtype=drawn, device=self.watch.device)
        if dtype.is_floating_point:
            return made.normal_(std=0.02).to(dtype)
        return made.fill_(0 if isinstance(value, State) else 1)

    def _key(self, node: Call) -> Key:
        """A key that is equal for nodes that take equally long: operator, types, strides and literals."""

        def part(value: Value) -> Key:
            if isinstance(value, Param):
                return ("weight", *self._type(value.type))
            tensor = self._value(value)
            return tuple(tensor.shape), tensor.stride(), tensor.dtype

        leaves, spec = tree_flatten(self._arguments(node, part))
        return str(node.op), str(spec), *map(repr, leaves)

    def _arguments(self, node: Call, read: Callable[[Value], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return operator_arguments(node, read, lambda size: as_number(size, self.graph.hints), self.watch.device)

    def _type(self, type: TensorType) -> tuple[tuple[int, ...], torch.dtype]:
        return tuple(d if isinstance(d, int) else int(as_number(d, self.graph.hints)) for d in type.shape), type.dtype
