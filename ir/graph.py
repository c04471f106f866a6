"""The program: values, the nodes that make them, and the graph they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeAlias, TypeVar, cast

import sympy
import torch
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from ir.cost import UNKNOWN, Cost, Measured, Split
from ir.location import Where
from ir.opaque import OPERATOR, Opaque, known
from ir.signature import Signature
from ir.sizes import TensorType


class ThisDevice:
    """Stands in an argument for the device of the stage that runs the node."""

    def __repr__(self) -> str:
        return "device"


THIS_DEVICE = ThisDevice()


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor somewhere in the program.  Compared by identity, named for people; names are unique."""

    name: str
    type: TensorType
    stands_for: str = field(default="", kw_only=True)  # the value of another stage that this one repeats


@dataclass(frozen=True, eq=False)
class Param(Value):
    """A value read from the checkpoint and never changed.  A tied weight is one Param with many fqns."""

    fqns: tuple[str, ...]
    buffer: bool = False  # registered as a buffer, not as a parameter


@dataclass(frozen=True, eq=False)
class Constant(Value):
    """A value that no checkpoint holds: a non-persistent buffer, a tensor attribute, an inline tensor."""

    fqn: str
    data: torch.Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class State(Value):
    """A value that a run reads and changes: a KV cache, running statistics."""

    fqns: tuple[str, ...]
    data: torch.Tensor | None = field(default=None, repr=False)  # None: the first value is in the checkpoint


@dataclass(frozen=True, eq=False, kw_only=True)
class _Node:
    """What every node has.  Passes replace nodes, never change them."""

    results: tuple[Value, ...]
    where: Where = Where()
    view: bool = False  # set by propagate-shapes; the results lie in the memory of an operand
    cost: Cost = UNKNOWN  # set by annotate-cost
    measured: tuple[Measured, ...] = ()  # set by annotate-cost where costs are profiled
    group: str = ""  # set by group-shared; the nodes of a group live on one device
    cheap: bool = False  # set by mark-cheap; may be computed again in every stage that needs it
    stage: int = 0  # set by split-stages; an unsplit program is one stage


@dataclass(frozen=True, eq=False, kw_only=True)
class Call(_Node):
    """An operator applied to arguments."""

    op: OpOverload
    args: tuple[Any, ...]  # Values, literals, Exprs, THIS_DEVICE, and lists of them, as torch takes them
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def operands(self) -> tuple[Value, ...]:
        return tuple(a for a in tree_leaves((self.args, dict(self.kwargs))) if isinstance(a, Value))

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments by their names in the operator's schema; what was left out has its default."""
        schema = self.op._schema.arguments
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        return {**defaults, **dict(zip((a.name for a in schema), self.args, strict=False)), **self.kwargs}

    @cached_property
    def symbols(self) -> frozenset[sympy.Symbol]:
        """The sizes that stand among the arguments."""
        exprs = (a for a in tree_leaves((self.args, dict(self.kwargs))) if isinstance(a, sympy.Basic))
        return frozenset(s for e in exprs for s in e.free_symbols if isinstance(s, sympy.Symbol))

    @cached_property
    def unpacks(self) -> bool:
        """Whether the operator returns several tensors, or a list of them."""
        returns = self.op._schema.returns
        return len(returns) > 1 or isinstance(returns[0].type, torch.ListType)


@dataclass(frozen=True, eq=False, kw_only=True)
class Transfer(_Node):
    """The identity, from another stage to this one."""

    value: Value
    src: int

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.value,)


Node: TypeAlias = Call | Transfer
_V = TypeVar("_V", bound=Value)


def map_arguments(node: Node, to: Callable[[Any], Any]) -> Node:
    """The same node with `to` applied to everything in its arguments: values, sizes, literals."""
    if isinstance(node, Transfer):
        return replace(node, value=to(node.value))
    args, kwargs = tree_map(to, (node.args, dict(node.kwargs)))
    return replace(node, args=args, kwargs=kwargs)


def rename(node: Node, to: Callable[[Value], Value]) -> Node:
    """The same node, reading other values."""
    return map_arguments(node, lambda a: to(a) if isinstance(a, Value) else a)


@dataclass(frozen=True)
class Graph:
    """A whole program in execution order.  Every pass maps one Graph to another."""

    inputs: tuple[Value, ...]
    params: tuple[Param, ...]
    constants: tuple[Constant, ...]
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]  # each made by a node
    updates: tuple[tuple[State, Value], ...]  # what each state holds after a run
    signature: Signature
    hints: Mapping[sympy.Symbol, int] = field(default_factory=dict)  # sizes of the example inputs
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]] = field(default_factory=dict)  # least and largest size
    guards: tuple[sympy.Basic, ...] = ()  # what must hold of the sizes besides their ranges
    modules: Mapping[str, str] = field(default_factory=dict)  # module path -> class name
    whole: tuple[Opaque, ...] = ()  # what the calls of modules that are kept whole run
    notes: tuple[str, ...] = ()  # what capture fixed or left whole, and why, for the user to read
    separable: frozenset[str] = frozenset()  # groups that copies may replace; set by group-shared
    placement: tuple[int, ...] = (0,)  # the device of each stage; set by split-stages
    split: Split = Split()  # set by split-stages

    @cached_property
    def producer(self) -> Mapping[Value, Node]:
        return {value: node for node in self.nodes for value in node.results}

    @cached_property
    def users(self) -> Mapping[Value, tuple[Node, ...]]:
        """The nodes that read each value, in order, each once."""
        users: dict[Value, dict[Node, None]] = {}
        for node in self.nodes:
            for value in node.operands:
                users.setdefault(value, {})[node] = None
        return {value: tuple(nodes) for value, nodes in users.items()}

    @property
    def names(self) -> set[str]:
        """The names in use: of all values, and of the sizes."""
        made = (v.name for node in self.nodes for v in node.results)
        return {*made, *(v.name for v in self.leaves), *map(str, self.hints)}

    @property
    def leaves(self) -> tuple[Value, ...]:
        """What stands before the first node runs."""
        return (*self.inputs, *self.params, *self.constants, *self.states)

    @property
    def kept(self) -> tuple[Value, ...]:
        """What is wanted after the last node ran: outputs and new states."""
        return (*self.outputs, *(value for _, value in self.updates))

    def map(self, rewrite: Callable[[Node], Node]) -> Graph:
        return replace(self, nodes=tuple(map(rewrite, self.nodes)))

    def map_values(self, to: Callable[[Value], Value]) -> Graph:
        """The same graph over other values; `to` is asked once for each value, and keeps its class."""
        to = cache(to)

        def all_of(values: tuple[_V, ...]) -> tuple[_V, ...]:
            return tuple(cast(_V, to(v)) for v in values)

        return replace(
            self,
            inputs=all_of(self.inputs),
            params=all_of(self.params),
            constants=all_of(self.constants),
            states=all_of(self.states),
            nodes=tuple(replace(rename(n, to), results=all_of(n.results)) for n in self.nodes),
            outputs=all_of(self.outputs),
            updates=tuple((cast(State, to(s)), to(v)) for s, v in self.updates),
        )


def sizes_of(values: Iterable[tuple[Value, torch.Tensor]]) -> dict[sympy.Symbol, int]:
    """Symbols bound by the shapes of tensors: {batch: 4} from `ids: int64[batch, seq]` and a tensor."""
    return {
        dim: size
        for value, tensor in values
        for dim, size in zip(value.type.shape, tensor.shape, strict=True)
        if isinstance(dim, sympy.Symbol)
    }


def dims(values: Iterable[Value]) -> dict[sympy.Symbol, tuple[Value, int]]:
    """Where each size can be read off the shape of a value."""
    found: dict[sympy.Symbol, tuple[Value, int]] = {}
    for value in values:
        for i, dim in enumerate(value.type.shape):
            if isinstance(dim, sympy.Symbol):
                found.setdefault(dim, (value, i))
    return found


def is_whole(call: Call) -> bool:
    """Whether a node runs a module that is kept whole."""
    return call.op == OPERATOR


def opaque_of(call: Call) -> Opaque:
    """What such a node runs."""
    return known(call.args[3])
