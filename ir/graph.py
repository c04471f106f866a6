"""The program: values, the nodes that make them, and the graph they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import sympy
import torch
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from ir.cluster import Device, Unit
from ir.signature import Signature

if TYPE_CHECKING:
    from ir.opaque import Opaque

Dim: TypeAlias = int | sympy.Expr
"""A size: a number, or an expression over the graph's symbols."""


class ThisDevice:
    """Stands in an argument for the device of the stage that runs the node."""

    def __repr__(self) -> str:
        return "device"


THIS_DEVICE = ThisDevice()


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of a tensor."""

    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> Dim:
        return prod(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}[{', '.join(map(str, self.shape))}]"


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


class Arithmetic(NamedTuple):
    """What flops are of: devices have units for a kind and a dtype, each with a rate of its own."""

    unit: Unit = "product"
    dtype: torch.dtype = torch.float32  # of the operands


@dataclass(frozen=True)
class Cost:
    """What a node asks of any machine, over the graph's symbols.

    `flops` are those of contractions (matrix products, convolutions, attention), two a multiply-add, as
    torch.utils.flop_counter counts them.  `bytes` is the traffic to and from memory, which bounds most of the
    rest.  `launches` is the number of kernels started.  A sum has the `arithmetic` of the first that has flops.
    `elements` are those of the largest tensor where shapes or dtypes differ, so that no kernel streams through them.
    """

    flops: Dim
    bytes: Dim
    launches: int = 1
    arithmetic: Arithmetic = Arithmetic()
    elements: Dim = 0

    def __add__(self, other: Cost) -> Cost:
        arithmetic = other.arithmetic if self.flops == 0 else self.arithmetic
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.launches + other.launches,
            arithmetic,
            self.elements + other.elements,
        )


class Time(NamedTuple):
    """Seconds of a device, and of the host that gives it its kernels while it works at earlier ones."""

    device: float
    host: float = 0.0

    def __add__(self, other: Time) -> Time:  # type: ignore[override]
        return Time(self.device + other.device, self.host + other.host)


@dataclass(frozen=True)
class Measured:
    """How long a node took on a device, at the sizes of the example inputs."""

    device: Device  # its kind: without its name and memory
    cost: Cost  # of the node, in plain numbers
    time: Time


@dataclass(frozen=True)
class Load:
    """Seconds that one device is predicted to spend on one batch, and the bytes that it holds at most."""

    compute: float = 0.0
    receive: float = 0.0
    send: float = 0.0
    memory: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.receive + self.send


@dataclass(frozen=True)
class Split:
    """How good a choice of stages is, in seconds of the objective: no other choice beats `lower_bound`."""

    objective: Literal["throughput", "latency"] = "throughput"
    in_flight: int = 1  # microbatches whose activations a stage holds
    value: float = 0.0
    lower_bound: float = 0.0
    binds: Literal["compute", "memory", "link"] = "compute"  # what keeps it from being better
    loads: tuple[Load, ...] = ()  # one a device
    good_for: Mapping[sympy.Symbol, tuple[int, int]] = field(default_factory=dict)  # set by check-sizes

    @property
    def gap(self) -> float:
        """How far the value may be from the best one, as a share of it."""
        return 1 - self.lower_bound / self.value if self.value else 0.0


FREE = Cost(0, 0, 0)
UNKNOWN = Cost(sympy.nan, sympy.nan)  # poisons every sum it enters


class Copy(NamedTuple):
    """`residual = hidden_states` in the user's source: a second name for one value."""

    line: int
    new: str
    old: str


@dataclass(frozen=True)
class Frame:
    """A module that is being called, and the statement of its `forward` that runs."""

    module: str  # dotted path, "" for the model itself
    file: str = ""  # "" in torch's own modules
    line: int = 0  # the statement's first
    assigns: tuple[str, ...] = ()  # the names that the statement gives to its results
    returns: tuple[str, ...] = ()  # the names in `return cos.to(…), sin.to(…)`
    parameters: tuple[str, ...] = ()  # those of `forward`, without self
    copies: tuple[Copy, ...] = ()  # those of `forward`


@dataclass(frozen=True)
class Where:
    """The place in the user's model that made a node."""

    module: str = ""  # dotted path: "model.layers.0.self_attn"
    file: str = ""
    line: int = 0
    code: str = ""  # the source line itself
    frames: tuple[Frame, ...] = field(default=(), repr=False)  # the calls that led there, outermost first

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else "an unknown source line"
        return f"{self.module or 'the model'} ({place})" + (f": {self.code}" if self.code else "")


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


def rename(node: Node, to: Callable[[Value], Value]) -> Node:
    """The same node, reading other values."""
    if isinstance(node, Transfer):
        return replace(node, value=to(node.value))
    args, kwargs = tree_map(lambda a: to(a) if isinstance(a, Value) else a, (node.args, dict(node.kwargs)))
    return replace(node, args=args, kwargs=kwargs)


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

    def __str__(self) -> str:
        from ir.printer import print_graph

        return print_graph(self)


def sizes_of(values: Iterable[tuple[Value, torch.Tensor]]) -> dict[sympy.Symbol, int]:
    """Symbols bound by the shapes of tensors: {batch: 4} from `ids: int64[batch, seq]` and a tensor."""
    return {
        dim: size
        for value, tensor in values
        for dim, size in zip(value.type.shape, tensor.shape, strict=True)
        if isinstance(dim, sympy.Symbol)
    }


def at(dim: Dim, sizes: Mapping[sympy.Symbol, int]) -> int:
    """A size as a number."""
    return dim if isinstance(dim, int) else int(bound(dim, sizes))


def bound(expr: sympy.Basic, sizes: Mapping[sympy.Symbol, int]) -> Any:
    """An expression with numbers in the place of symbols."""
    return expr.subs(sizes.items())  # type: ignore[arg-type]


def hold(guards: Iterable[sympy.Basic], sizes: Mapping[Any, int]) -> bool:
    """Whether all conditions hold of some sizes; one that divides by zero there does not.

    Nor does one that takes the rest of a negative number, which is made of sizes too small to subtract from.
    """
    try:
        return all(bound(guard, sizes) == sympy.true for guard in guards)
    except (ZeroDivisionError, AssertionError):  # the latter of torch's own Mod
        return False
