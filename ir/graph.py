"""The program: values, the nodes that make them, and the graph they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeAlias, TypeVar, cast

import sympy
import torch
from torch._ops import OpOverload

from ir.cost import UNKNOWN, Cost, Measured, Split
from ir.decoding import Decoding
from ir.location import Where
from ir.microbatching import Microbatching
from ir.objects.nested import mapped, nested_leaves
from ir.objects.opaque import OPERATOR, Opaque, known
from ir.objects.signature import Signature
from ir.sizes import CallSizes, TensorType, ValueCondition


class ThisDevice:
    """A placeholder in arguments for the device of the stage that runs the node."""

    def __repr__(self) -> str:
        return "device"


THIS_DEVICE = ThisDevice()


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the program.  Values are compared by identity; their names are unique in a graph."""

    name: str
    type: TensorType
    copy_of: str = field(default="", kw_only=True)  # name of the original, where another stage's value is copied
    variables: tuple[str, ...] = field(default=(), kw_only=True, repr=False)  # see ir.capture.program.variables


@dataclass(frozen=True, eq=False)
class Param(Value):
    """A value read from the checkpoint and never changed.  A tied weight is one Param with many fqns."""

    fqns: tuple[str, ...]
    buffer: bool = False  # registered as a buffer, not as a parameter
    frozen: bool = False  # a parameter that takes no gradient


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
    rows: str = ""  # of a pool, which is made of zeros where it is loaded: the name of its first size, bound then

    @property
    def zeros(self) -> bool:
        """Whether it is a pool: its first value is zeros, which no file has."""
        return bool(self.rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Node:
    """The fields of every node.  Passes replace nodes, never change them."""

    results: tuple[Value, ...]
    where: Where = Where()
    view: bool = False  # set by propagate-shapes; the results share the memory of an operand
    cost: Cost = UNKNOWN  # set by annotate-cost
    measured: tuple[Measured, ...] = ()  # set by annotate-cost where costs are profiled
    group: str = ""  # set by group-shared; the nodes of a group live on one device
    cheap: bool = False  # set by mark-cheap; may be computed again in each stage that reads it
    kernel: str = ""  # set by fuse-elementwise; the nodes of a kernel that share a stage are one launch there
    stage: int = 0  # set by split-stages; an unsplit program is one stage
    program: int = 0  # index in Graph.programs; 0 in a graph of one program


def named_arguments(op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of an operator by their names in its schema, in its order, with defaults for those left out."""
    schema = op._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False)) | dict(kwargs)
    return {a.name: given.get(a.name, a.default_value) for a in schema}


@dataclass(frozen=True, eq=False, kw_only=True)
class Call(_Node):
    """An operator applied to arguments."""

    op: OpOverload
    args: tuple[Any, ...]  # Values, literals, Exprs, THIS_DEVICE, and lists of them, as torch takes them
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def operands(self) -> tuple[Value, ...]:
        return tuple(a for a in nested_leaves((self.args, dict(self.kwargs))) if isinstance(a, Value))

    @cached_property
    def arguments(self) -> Mapping[str, Any]:
        """All arguments by their names in the operator's schema, in its order, with defaults for those left out."""
        return named_arguments(self.op, self.args, self.kwargs)

    @cached_property
    def symbols(self) -> frozenset[sympy.Symbol]:
        """The symbols in the arguments."""
        exprs = (a for a in nested_leaves((self.args, dict(self.kwargs))) if isinstance(a, sympy.Basic))
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
    """The same node with `to` applied to each value, size and literal in its arguments."""
    if isinstance(node, Transfer):
        return replace(node, value=to(node.value))
    args, kwargs = mapped(to, (node.args, dict(node.kwargs)))
    return replace(node, args=args, kwargs=kwargs)


def rename(node: Node, to: Callable[[Value], Value]) -> Node:
    """The same node with `to` applied to the values that it reads; the node itself where that changes none."""
    if all(to(v) is v for v in node.operands):
        return node
    return map_arguments(node, lambda a: to(a) if isinstance(a, Value) else a)


@dataclass(frozen=True)
class Program:
    """One of several programs that share params, constants and states: a variant by value, prefill, an encoder.

    Names of values are unique in a program.  A symbol of another size or range in another program has a name of its
    own in the graph; `symbols` maps it to the symbol that the program itself knows.
    """

    name: str  # an identifier; files are named after it
    condition: Mapping[str, Any]  # JSON: {"image_grid_thw": [[1, 28, 42]]}, values that inputs must have; empty: none
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[State, Value], ...]
    signature: Signature
    layouts: tuple[tuple[int, ...], ...] = ()
    guards: tuple[sympy.Basic, ...] = ()
    counts: tuple[ValueCondition, ...] = ()
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]] = field(default_factory=dict)  # of its own sizes
    symbols: Mapping[sympy.Symbol, sympy.Symbol] = field(default_factory=dict)
    microbatching: Microbatching = Microbatching()
    calls: float = 1.0  # how often it runs, relative to the others: the weight of its times in the cut

    @property
    def kept(self) -> tuple[Value, ...]:
        """Values that are needed after the last node: outputs and new states."""
        return (*self.outputs, *(value for _, value in self.updates))


@dataclass(frozen=True)
class Graph:
    """A whole program in execution order, or several.  Every pass maps one Graph to another.

    With several `programs`, the fields of the graph are the union of theirs, and `signature` is that of the first.
    """

    inputs: tuple[Value, ...]
    params: tuple[Param, ...]
    constants: tuple[Constant, ...]
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]  # each made by a node
    updates: tuple[tuple[State, Value], ...]  # each state with its value after a run
    signature: Signature
    hints: Mapping[sympy.Symbol, int] = field(default_factory=dict)  # sizes of the example inputs
    workload: tuple[CallSizes, ...] = ()  # the sizes that it is cut for; empty: those of the example
    made_up: bool = False  # whether nobody chose these sizes
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]] = field(default_factory=dict)  # least and largest size
    guards: tuple[sympy.Basic, ...] = ()  # conditions on the sizes besides their ranges
    counts: tuple[ValueCondition, ...] = ()  # conditions on the values of inputs
    modules: Mapping[str, str] = field(default_factory=dict)  # module path -> class name
    whole: tuple[Opaque, ...] = ()  # the modules that are kept whole
    notes: tuple[str, ...] = ()  # for the user: what capture fixed or kept whole, and why
    separable: frozenset[str] = frozenset()  # groups that may be copied, not colocated; set by group-shared
    layouts: tuple[tuple[int, ...], ...] = ()  # of the example inputs: their dimensions, the outermost in memory first
    microbatching: Microbatching = Microbatching()  # set by follow-rows
    placement: tuple[int, ...] = (0,)  # the device of each stage; set by split-stages
    split: Split = Split()  # set by split-stages
    decoding: Decoding = Decoding()  # how a decoder's step continues texts
    adapters: tuple[str, ...] = ()  # the names of those that rows choose from, by the input `adapter`: 1 for the first
    programs: tuple[Program, ...] = ()  # empty: one program, which is the graph

    @property
    def traced_sizes(self) -> dict[sympy.Symbol, int]:
        """The sizes of the example inputs as torch.export takes them: a size that may change is 2 or more."""
        return {symbol: max(hint, 2) for symbol, hint in self.hints.items()}

    @property
    def mix(self) -> tuple[CallSizes, ...]:
        """The sizes that the graph is cut for, with their shares of the calls: predicted numbers hold for these."""
        return self.workload or (CallSizes(self.hints),)

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
        """The names of all values and symbols."""
        made = (v.name for node in self.nodes for v in node.results)
        return {*made, *(v.name for v in self.leaves), *map(str, self.hints)}

    @property
    def leaves(self) -> tuple[Value, ...]:
        """Values that no node makes: inputs, params, constants and states."""
        return (*self.inputs, *self.params, *self.constants, *self.states)

    @property
    def kept(self) -> tuple[Value, ...]:
        """Values that are needed after the last node: outputs and new states."""
        return (*self.outputs, *(value for _, value in self.updates))

    def map(self, rewrite: Callable[[Node], Node]) -> Graph:
        return replace(self, nodes=tuple(map(rewrite, self.nodes)))

    def map_values(self, to: Callable[[Value], Value]) -> Graph:
        """The same graph with `to` applied to all values, once each; it must keep the class of a value."""
        to = cache(to)

        def all_of(values: tuple[_V, ...]) -> tuple[_V, ...]:
            return tuple(cast(_V, to(v)) for v in values)

        return replace(
            self,
            inputs=all_of(self.inputs),
            params=all_of(self.params),
            constants=all_of(self.constants),
            states=all_of(self.states),
            nodes=tuple(_with_results(rename(n, to), all_of(n.results)) for n in self.nodes),
            outputs=all_of(self.outputs),
            updates=tuple((cast(State, to(s)), to(v)) for s, v in self.updates),
            programs=tuple(
                replace(
                    program,
                    inputs=all_of(program.inputs),
                    outputs=all_of(program.outputs),
                    updates=tuple((cast(State, to(s)), to(v)) for s, v in program.updates),
                )
                for program in self.programs
            ),
        )


def _with_results(node: Node, results: tuple[Value, ...]) -> Node:
    return node if results == node.results else replace(node, results=results)


def sizes_of(values: Iterable[tuple[Value, torch.Tensor]]) -> dict[sympy.Symbol, int]:
    """Symbols bound by the shapes of tensors: {batch: 4} from `ids: int64[batch, seq]` and a tensor."""
    return {
        dim: size
        for value, tensor in values
        for dim, size in zip(value.type.shape, tensor.shape, strict=True)
        if isinstance(dim, sympy.Symbol)
    }


def dims(values: Iterable[Value]) -> dict[sympy.Symbol, tuple[Value, int]]:
    """For each symbol that is a dimension of a value, the value and the dimension."""
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
    """The module that such a node runs."""
    return known(call.args[3])
