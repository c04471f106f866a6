"""propagate-shapes: a check of every type against the operators' own shape rules, and the nodes that are views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any, ClassVar

import sympy
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.bind import SizeValues, allowed_sizes, bind_sizes
from ir.analysis.programs import by_program
from ir.errors import VerifyError
from ir.graph import Call, Graph, Node, Transfer, Value
from ir.higher_order import HigherOrder, higher_order_of, is_higher_order
from ir.machine.cluster import Cluster
from ir.sizes import TensorType, at, in_layout


@dataclass(frozen=True)
class PropagateShapes:
    """Each operator runs on tensors without data, at the example's sizes and at one other set of sizes.

    A node is a view if its results lie in the memory of an operand at both.  Raises VerifyError for a wrong type.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)  # {"batch": 4} fixes that size

    name: ClassVar = "propagate-shapes"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        return by_program(bind_sizes(graph, self.sizes), _with_views)


def _with_views(graph: Graph) -> Graph:
    runs = [_views(graph, sizes) for sizes in islice(allowed_sizes(graph), 2)]
    views = map(all, zip(*runs, strict=True))
    return replace(graph, nodes=tuple(replace(n, view=v) for n, v in zip(graph.nodes, views, strict=True)))


def _views(graph: Graph, sizes: SizeValues) -> list[bool]:
    """Whether each node is a view, from a run of the graph on tensors without data.

    Raises VerifyError where the type of a result that is read is not that of its value.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        env: dict[Value, Any] = {v: _empty(v, sizes) for v in graph.leaves}
        env |= {v: in_layout(env[v], layout) for v, layout in zip(graph.inputs, graph.layouts, strict=False)}
        return _run_all(graph.nodes, env, sizes, {*graph.kept, *graph.users})


def _run_all(nodes: Sequence[Node], env: dict[Value, Any], sizes: SizeValues, read: Set[Value]) -> list[bool]:
    """Whether each node is a view; `read` are the values whose types matter, `env` has those that no node makes."""
    numbers = cache(lambda expr: as_number(expr, sizes))
    views = []
    for node in nodes:
        results = _run(node, env, numbers, sizes)
        for value, found in zip(node.results, results, strict=True):
            if value in read and isinstance(found, torch.Tensor):  # a size is never read
                _check(value, _typed(value, sizes), TensorType(tuple(found.shape), found.dtype), node, sizes)
        if isinstance(node, Call) and is_higher_order(node):
            _run_bodies(higher_order_of(node), sizes)
        env.update(zip(node.results, results, strict=True))
        views.append(_is_view(node, results, env))
    return views


def _run_bodies(what: HigherOrder, sizes: SizeValues) -> None:
    """Check the types in the functions that a node runs."""
    for body in what.bodies:
        counters = {s: 1 for s in body.inputs if isinstance(s, sympy.Symbol) and s not in sizes}
        known = {**sizes, **counters}
        given = (*what.captured, *(v for v in body.inputs if isinstance(v, Value)))
        _run_all(body.nodes, {v: _empty(v, known) for v in given}, known, {v for n in body.nodes for v in n.results})


def _typed(value: Value, sizes: SizeValues) -> TensorType:
    return TensorType(tuple(at(d, sizes) for d in value.type.shape), value.type.dtype)


def _empty(value: Value, sizes: SizeValues) -> torch.Tensor:
    return torch.empty([at(d, sizes) for d in value.type.shape], dtype=value.type.dtype)


_RULES: Mapping[
    Any, Callable[..., torch.Tensor]
] = {  # torch's own rule refuses all dtypes but bfloat16, which its kernel does not
    torch.ops.aten._grouped_mm.default: lambda x, weight, *_, **__: x.new_empty(*x.shape[:-1], weight.shape[-1]),
}


def _run(
    node: Node, env: Mapping[Value, torch.Tensor], number: Callable[[sympy.Basic], Any], sizes: SizeValues
) -> list[Any]:
    if isinstance(node, Transfer):
        return [env[node.value].clone()]
    args, kwargs = operator_arguments(node, env.__getitem__, number, torch.device("cpu"))
    try:
        out = _RULES.get(node.op, node.op)(*args, **kwargs)
    except DynamicOutputShapeException:  # elements at a mask, as many as the model's code takes them to be
        return [_empty(value, sizes) for value in node.results]
    except Exception as e:
        raise VerifyError(f"{node.results[0].name} = {node.op} does not take these types: {e}", node) from e
    return list(out) if node.unpacks else [out]


def _check(value: Value, stated: TensorType, found: TensorType, node: Node, sizes: SizeValues) -> None:
    if stated != found:
        where = f"for {', '.join(f'{s} = {size}' for s, size in sizes.items())} " if stated != value.type else ""
        raise VerifyError(f"{value.name} was {value.type}, but {where}its operands make it {found}", node)


def _is_view(node: Node, results: Sequence[Any], env: Mapping[Value, torch.Tensor]) -> bool:
    """Whether every result lies in the memory of an operand."""
    if isinstance(node, Transfer):
        return False
    memory = {_storage(env[v]) for v in node.operands}
    tensors = [r for r in results if isinstance(r, torch.Tensor)]
    return bool(tensors) and all(_storage(t) in memory for t in tensors)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
