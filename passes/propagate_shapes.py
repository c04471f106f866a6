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

from ir.bind import bind_sizes
from ir.cluster import Cluster
from ir.errors import VerifyError
from ir.graph import THIS_DEVICE, Dim, Graph, Node, TensorType, Transfer, Value, at, bound


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
