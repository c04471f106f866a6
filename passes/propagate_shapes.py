"""propagate-shapes: type every value again from the types of the inputs, and see which nodes are views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._pytree import tree_leaves, tree_map

from ir.cluster import Cluster
from ir.errors import CompileError, VerifyError
from ir.graph import THIS_DEVICE, Dim, Graph, Node, TensorType, Transfer, Value, at, bound, rename


@dataclass(frozen=True)
class PropagateShapes:
    """Each operator's own shape rule is run on tensors without data, over symbolic or given sizes."""

    sizes: Mapping[str, int] = field(default_factory=dict)  # {"batch": 4} types the program for that batch alone

    name: ClassVar = "propagate-shapes"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        graph = bind_sizes(graph, self.sizes)
        nodes = []
        with Sizes(graph) as sizes:
            env = {leaf: sizes.tensor(leaf.type) for leaf in graph.leaves}
            for node in graph.nodes:
                results = _run(node, env, sizes)
                types = [
                    sizes.type_of(r) if isinstance(r, FakeTensor) else v.type
                    for r, v in zip(results, node.results, strict=True)
                ]
                _check(node, types, graph)
                env.update(zip(node.results, results, strict=True))
                nodes.append(replace(node, view=_is_view(node, results, env)))
        return replace(graph, nodes=tuple(nodes))


def bind_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph for given values of some of its symbols.  Raises CompileError for a name that it does not have."""
    symbols = {str(s): s for s in graph.hints}
    for name in sizes:
        if name not in symbols:
            raise CompileError(f"no dynamic size is named {name!r}; there are {', '.join(symbols) or 'none'}")
    values = {symbols[name]: size for name, size in sizes.items()}
    if not values:
        return graph

    def dim(d: Any) -> Any:
        if not isinstance(d, sympy.Basic):
            return d
        return _dim(bound(d, values))

    moved: dict[Value, Value] = {}

    def value(v: Value) -> Value:
        if v not in moved:
            moved[v] = replace(v, type=TensorType(tuple(map(dim, v.type.shape)), v.type.dtype))
        return moved[v]

    def node(n: Node) -> Node:
        n = replace(rename(n, value), results=tuple(map(value, n.results)))
        if isinstance(n, Transfer):
            return n
        args, kwargs = tree_map(dim, (n.args, dict(n.kwargs)))
        return replace(n, args=args, kwargs=kwargs)

    def moved_all(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(map(value, values))

    returns = replace(graph.signature.returns, leaves=tuple(map(dim, graph.signature.returns.leaves)))
    return replace(
        graph,
        inputs=moved_all(graph.inputs),
        params=moved_all(graph.params),
        constants=moved_all(graph.constants),
        states=moved_all(graph.states),
        nodes=tuple(map(node, graph.nodes)),
        outputs=moved_all(graph.outputs),
        updates=tuple((moved[s], value(v)) for s, v in graph.updates),  # type: ignore[misc]
        signature=replace(graph.signature, returns=returns),
        hints={s: h for s, h in graph.hints.items() if s not in values},
        ranges={s: r for s, r in graph.ranges.items() if s not in values},
        guards=tuple(g for g in (bound(guard, values) for guard in graph.guards) if g is not sympy.true),
    )


def _dim(expr: Any) -> Any:
    return int(expr) if expr.is_Integer else expr


class Sizes:
    """Tensors without data whose sizes are the graph's symbols, as torch's own shape rules take them."""

    def __init__(self, graph: Graph) -> None:
        self._env = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._env, allow_non_fake_inputs=True)
        self._hints = {s: max(hint, 2) for s, hint in graph.hints.items()}
        symbols = list(self._hints)
        carrier = self._mode.from_tensor(
            torch.empty([self._hints[s] for s in symbols], device="meta"),
            symbolic_context=StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * len(symbols)),
            static_shapes=False,
        )
        theirs: Any = carrier.shape
        self._theirs = {s: d.node.expr for s, d in zip(symbols, theirs, strict=True)}
        self._ours = {expr: s for s, expr in self._theirs.items()}

    def __enter__(self) -> Sizes:
        self._stack = ExitStack()
        self._stack.enter_context(self._mode)
        self._stack.enter_context(enable_python_dispatcher())  # operators made of others keep sizes symbolic
        self._stack.enter_context(torch.no_grad())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def number(self, dim: Any) -> Any:
        """A size as torch's operators take it."""
        if not isinstance(dim, sympy.Expr):
            return dim
        if not dim.is_integer:
            return float(bound(dim, self._hints))  # type: ignore[arg-type]  # no type depends on it
        theirs: Any = dim.xreplace(self._theirs)
        return self._env.create_symintnode(theirs, hint=at(dim, self._hints))

    def tensor(self, type: TensorType) -> torch.Tensor:
        return torch.empty([self.number(d) for d in type.shape], dtype=type.dtype)

    def type_of(self, tensor: torch.Tensor) -> TensorType:
        return TensorType(tuple(map(self._dim, tensor.shape)), tensor.dtype)

    def _dim(self, size: Any) -> Dim:
        if isinstance(size, int):
            return size
        return _dim(size.node.expr.xreplace(self._ours))


def _run(node: Node, env: Mapping[Value, torch.Tensor], sizes: Sizes) -> list[Any]:
    if isinstance(node, Transfer):
        return [env[node.value].clone()]

    def read(arg: Any) -> Any:
        if isinstance(arg, Value):
            return env[arg]
        return torch.device("cpu") if arg is THIS_DEVICE else sizes.number(arg)

    args, kwargs = tree_map(read, (node.args, dict(node.kwargs)))
    try:
        out = node.op(*args, **kwargs)
    except Exception as e:
        raise VerifyError(f"{node.results[0].name} = {node.op} does not take these types: {e}", node) from e
    return list(out) if node.unpacks else [out]


def _check(node: Node, types: Sequence[TensorType], graph: Graph) -> None:
    for value, found in zip(node.results, types, strict=True):
        if found.dtype != value.type.dtype or not _same_shape(found.shape, value.type.shape, graph):
            raise VerifyError(f"{value.name} was {value.type}, but its operands make it {found}", node)


def _same_shape(a: Sequence[Dim], b: Sequence[Dim], graph: Graph) -> bool:
    return len(a) == len(b) and all(x == y or _same_size(x, y, graph.hints) for x, y in zip(a, b, strict=True))


def _same_size(a: Dim, b: Dim, hints: Mapping[sympy.Symbol, int]) -> bool:
    """Equal as expressions, or at the example's sizes and at their multiples (which keep divisibility)."""
    difference = sympy.sympify(a) - sympy.sympify(b)
    if sympy.expand(difference) == 0:
        return True
    return all(bound(difference, {s: k * h for s, h in hints.items()}) == 0 for k in (1, 2, 3, 5))


def _is_view(node: Node, results: Sequence[Any], env: Mapping[Value, torch.Tensor]) -> bool:
    """Whether every result lies in the memory of an operand."""
    if isinstance(node, Transfer):
        return False
    memory = {_storage(env[v]) for v in node.operands}
    tensors = [r for r in tree_leaves(results) if isinstance(r, torch.Tensor)]
    return bool(tensors) and all(_storage(t) in memory for t in tensors)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
