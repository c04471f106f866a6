"""propagate-shapes: a check of every type against the operators' own shape rules, and the nodes that are views."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from typing import Any, ClassVar

import sympy
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.bind import SizeValues, allowed_sizes, bind_sizes
from ir.analysis.programs import by_program
from ir.errors import VerifyError
from ir.graph import Call, Graph, Node, Param, Transfer, Value
from ir.machine.cluster import Cluster
from ir.operators.higher_order import HigherOrder, higher_order_of, is_higher_order
from ir.operators.int_sizes import istft_result
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

    def looks_at(self, cluster: Cluster) -> Hashable:
        return ()

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
        run = _Run(sizes)
        env: dict[Value, Any] = {v: run.stored(v) if isinstance(v, Param) else run.empty(v) for v in graph.leaves}
        env |= {v: in_layout(env[v], layout) for v, layout in zip(graph.inputs, graph.layouts, strict=False)}
        return run.all(graph.nodes, env, {*graph.kept, *graph.users})


def _packed(data: torch.Tensor, _: torch.Tensor, states: Any, *options: Any) -> tuple[torch.Tensor, ...]:
    """The results of a recurrent layer over packed sequences, `[elements, width]`, whose lengths are values."""
    first, *others = states if isinstance(states, (list, tuple)) else [states]
    bidirectional = options[-1]
    width = first.shape[-1] * (2 if bidirectional else 1)
    return data.new_empty(data.shape[0], width), first.new_empty(first.shape), *(s.new_empty(s.shape) for s in others)


_RULES: Mapping[Any, Callable[..., Any]] = {
    # torch's own rules ask for the values of the lengths
    **dict.fromkeys((getattr(torch.ops.aten, name).data for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")), _packed),
    torch.ops.aten.istft.default: istft_result,
    # torch's own rule refuses all dtypes but bfloat16, which its kernel does not
    torch.ops.aten._grouped_mm.default: lambda x, weight, *_, **__: x.new_empty(*x.shape[:-1], weight.shape[-1]),
}


@dataclass(frozen=True)
class _Run:
    """A run on tensors without data.  An operator runs once for all nodes whose arguments look alike."""

    sizes: SizeValues
    found: dict[Any, tuple[list[Any], bool]] = field(default_factory=dict)  # results, and whether they are views
    params: dict[TensorType, torch.Tensor] = field(default_factory=dict)
    bodies: dict[HigherOrder, None] = field(default_factory=dict)  # whose functions hold

    @cached_property
    def number(self) -> Callable[[sympy.Basic], Any]:
        return cache(lambda expr: as_number(expr, self.sizes))

    def empty(self, value: Value) -> torch.Tensor:
        return torch.empty(self.typed(value).shape, dtype=value.type.dtype)  # type: ignore[arg-type]

    def stored(self, param: Param) -> torch.Tensor:
        """One tensor for all params of a type, which no node changes."""
        if param.type not in self.params:
            self.params[param.type] = self.empty(param)
        return self.params[param.type]

    def typed(self, value: Value) -> TensorType:
        shape = value.type.shape
        return TensorType(tuple(d if isinstance(d, int) else self.number(d) for d in shape), value.type.dtype)

    def all(self, nodes: Sequence[Node], env: dict[Value, Any], read: Set[Value]) -> list[bool]:
        """Whether each node is a view.

        `env` has the values that no node makes, and gets those of the nodes; `read` are those whose types matter.
        """
        views = []
        for node in nodes:
            results, view = self._once(node, env)
            for value, found in zip(node.results, results, strict=True):
                if value in read and isinstance(found, torch.Tensor):  # a size is never read
                    _check(value, self.typed(value), TensorType(tuple(found.shape), found.dtype), node, self.sizes)
            if isinstance(node, Call) and is_higher_order(node):
                self._run_bodies(higher_order_of(node))
            env.update(zip(node.results, results, strict=True))
            views.append(view)
        return views

    def _run_bodies(self, what: HigherOrder) -> None:
        """Check the types in the functions that a node runs, once for all nodes that run the same."""
        if what in self.bodies:
            return
        self.bodies[what] = None
        for body in what.bodies:
            counters = {s: 1 for s in body.inputs if isinstance(s, sympy.Symbol) and s not in self.sizes}
            run = _Run({**self.sizes, **counters})
            given = (*what.captured, *(v for v in body.inputs if isinstance(v, Value)))
            run.all(body.nodes, {v: run.empty(v) for v in given}, {v for n in body.nodes for v in n.results})

    def _once(self, node: Node, env: Mapping[Value, Any]) -> tuple[list[Any], bool]:
        """The results of a node, which are those of an earlier one like it, and whether it is a view."""
        if isinstance(node, Transfer):
            return [env[node.value].clone()], False
        key = (node.op, self._look((node.args, dict(node.kwargs)), env))
        if key not in self.found or node.op._schema.is_mutable:
            try:
                self.found[key] = self._anew(node, env)
            except DynamicOutputShapeException:  # elements at a mask, as many as the model's code takes them to be
                return [self.empty(value) for value in node.results], False
        return self.found[key]

    def _look(self, arg: Any, env: Mapping[Value, Any]) -> Any:
        """The parts of a node's arguments on which its operator's rule may depend: of tensors, all but their data."""
        match arg:
            case Value():
                return self._look(env[arg], env)
            case torch.Tensor() if arg.layout is torch.strided:
                return arg.shape, arg.stride(), arg.storage_offset(), arg.dtype, arg.device
            case list() | tuple():
                return type(arg), *(self._look(item, env) for item in arg)
            case dict():
                return tuple((name, self._look(item, env)) for name, item in arg.items())
            case sympy.Basic():
                return self._look(self.number(arg), env)
            case int() | float() | str():
                return type(arg), arg  # True is not 1
            case _:
                return arg

    def _anew(self, node: Call, env: Mapping[Value, Any]) -> tuple[list[Any], bool]:
        args, kwargs = operator_arguments(node, env.__getitem__, self.number, torch.device("cpu"))
        try:
            out = _RULES.get(node.op, node.op)(*args, **kwargs)
        except DynamicOutputShapeException:
            raise
        except Exception as e:
            raise VerifyError(f"{node.results[0].name} = {node.op} does not take these types: {e}", node) from e
        results = list(out) if node.unpacks else [out]
        return results, _is_view(node, results, env)


def _check(value: Value, stated: TensorType, found: TensorType, node: Node, sizes: SizeValues) -> None:
    if stated != found:
        where = f"for {', '.join(f'{s} = {size}' for s, size in sizes.items())} " if stated != value.type else ""
        raise VerifyError(f"{value.name} was {value.type}, but {where}its operands make it {found}", node)


def _is_view(node: Call, results: Sequence[Any], env: Mapping[Value, torch.Tensor]) -> bool:
    """Whether every result lies in the memory of an operand."""
    memory = {_storage(env[v]) for v in node.operands}
    tensors = [r for r in results if isinstance(r, torch.Tensor)]
    return bool(tensors) and all(_storage(t) in memory for t in tensors)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
