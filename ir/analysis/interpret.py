"""An interpreter of graphs: its results are the meaning that every pass must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.bind import SizeValues
from ir.analysis.pools import updated_in_place
from ir.analysis.programs import program_of
from ir.autocast import without_autocast
from ir.graph import Graph, Node, Param, State, Transfer, Value, sizes_of
from ir.sizes import at


class Result(NamedTuple):
    """The outputs of a run and the new states."""

    outputs: list[torch.Tensor]
    state: dict[str, torch.Tensor]  # by State.name


def interpret(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor] | None = None,
    program: int = 0,
) -> Result:
    """Run on `inputs` with `weights` by fully qualified name, from `state` by name or else from the initial state.

    `program` is the index of one of several.  A weight is read for each node that takes it, and not kept.
    """
    graph = program_of(graph, program)
    sizes = sizes_of(zip(graph.inputs, inputs, strict=True))
    env = _Values(weights)
    env |= dict(zip(graph.inputs, inputs, strict=True))
    env |= {c: c.data for c in graph.constants}
    env |= {s: (state or {}).get(s.name, _first(s, weights)) for s in graph.states}
    env |= {s: env[s].clone() for s in updated_in_place(graph)}
    device = next((t.device for t in env.values()), torch.device("cpu"))
    last = {value: node for node in graph.nodes for value in node.operands}
    kept = {*graph.kept, *graph.leaves}
    with torch.no_grad(), without_autocast():
        for node in graph.nodes:
            out = _result(node, env, sizes, device)
            many = not isinstance(node, Transfer) and node.unpacks
            env.update(zip(node.results, out if many else [out], strict=True))
            for value in {*node.operands, *node.results}:
                if last.get(value, node) is node and value not in kept:
                    del env[value]
    return Result([env[v] for v in graph.outputs], {s.name: env[v] for s, v in graph.updates})


class _Values(dict[Value, torch.Tensor]):
    """Values that are made already; params come from the weights, in their dtype."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._weights = weights

    def __missing__(self, value: Value) -> torch.Tensor:
        if not isinstance(value, Param):
            raise KeyError(value)
        return lookup(self._weights, value.fqns).to(value.type.dtype)


def _result(node: Node, env: _Values, sizes: SizeValues, device: torch.device) -> Any:
    if isinstance(node, Transfer):
        return env[node.value]
    args, kwargs = operator_arguments(node, env.__getitem__, lambda size: as_number(size, sizes), device)
    return node.op(*args, **kwargs)


def _first(state: State, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if state.zeros:
        return torch.zeros([at(n, {}) for n in state.type.shape], dtype=state.type.dtype)
    return lookup(weights, state.fqns) if state.data is None else state.data


def lookup(weights: Mapping[str, torch.Tensor], fqns: Sequence[str]) -> torch.Tensor:
    """The tensor of any of the names: a checkpoint holds a tied weight under one of them."""
    return weights[next((fqn for fqn in fqns if fqn in weights), fqns[0])]
