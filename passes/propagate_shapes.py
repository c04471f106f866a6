"""propagate-shapes: a check of every type against the operators' own shape rules, and the nodes that are views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any, ClassVar

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ir.analysis.bind import SizeValues, allowed_sizes, bind_sizes
from ir.analysis.interpret import as_number, operator_arguments
from ir.analysis.programs import by_program
from ir.errors import VerifyError
from ir.graph import Graph, Node, Transfer, Value
from ir.machine.cluster import Cluster
from ir.sizes import TensorType, in_layout


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
    numbers = cache(lambda expr: as_number(expr, sizes))

    def typed(type: TensorType) -> TensorType:
        return TensorType(tuple(d if isinstance(d, int) else int(numbers(d)) for d in type.shape), type.dtype)

    views, read = [], {*graph.kept, *graph.users}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        env: dict[Value, Any] = {v: torch.empty(typed(v.type).shape, dtype=v.type.dtype) for v in graph.leaves}  # type: ignore[arg-type]
        env |= {v: in_layout(env[v], layout) for v, layout in zip(graph.inputs, graph.layouts, strict=False)}
        for node in graph.nodes:
            results = _run(node, env, numbers)
            for value, found in zip(node.results, results, strict=True):
                if value in read and isinstance(found, torch.Tensor):  # a size is never read
                    _check(value, typed(value.type), TensorType(tuple(found.shape), found.dtype), node, sizes)
            env.update(zip(node.results, results, strict=True))
            views.append(_is_view(node, results, env))
    return views


_RULES: Mapping[
    Any, Callable[..., torch.Tensor]
] = {  # torch's own rule refuses all dtypes but bfloat16, which its kernel does not
    torch.ops.aten._grouped_mm.default: lambda x, weight, *_, **__: x.new_empty(*x.shape[:-1], weight.shape[-1]),
}


def _run(node: Node, env: Mapping[Value, torch.Tensor], number: Callable[[sympy.Basic], Any]) -> list[Any]:
    if isinstance(node, Transfer):
        return [env[node.value].clone()]
    args, kwargs = operator_arguments(node, env.__getitem__, number, torch.device("cpu"))
    try:
        out = _RULES.get(node.op, node.op)(*args, **kwargs)
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
