"""The problem of cutting a weighted DAG into stages, and a solution of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from os import PathLike

from passes.partitioners.problem import published
from passes.partitioners.problem.errors import InvalidProblem
from passes.partitioners.problem.objective import DEFAULT_OBJECTIVE, Objective
from passes.partitioners.problem.parts import Device, Link, Node, Remade, Value, Weight


@dataclass(frozen=True)
class Problem:
    """A program, the devices, and the requirements on a split. Nodes are named by their index.

    `groups` are nodes bound to one device. `modules` are nodes that belong together, which a plain cut does not
    part (see `crossing`). `links[a, b]` is the link from device a to device b where it differs from `link`.
    `precedence` are pairs (before, after) that stages must respect; None means every value's producer before its
    consumers. `several_stages`: a device may hold two stages, the first and the last. `every_device`: no device may
    stay empty. `fixed_order`: the pipeline runs through the devices in the order listed. `in_flight`: the
    microbatches for which a stage holds activations. `ids` name the nodes in `stage_of` where an index does not.
    `runs` are the first nodes of further programs, each of which begins when the one before it has ended, so that their
    values are not held at the same time. `remade` are values that every stage makes anew before its first reader of
    them (as `inline` finds them for copied nodes). `via_host`: a value first leaves its device for the host's memory,
    and a stage has ended only when all that it sends is there. `derived` are problems that were made of this one, by
    the name of what made them.
    """

    nodes: tuple[Node, ...]
    values: tuple[Value, ...] = ()
    weights: tuple[Weight, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    devices: tuple[Device, ...] = (Device(),)
    link: Link = Link()
    links: Mapping[tuple[int, int], Link] = field(default_factory=dict)
    precedence: tuple[tuple[int, int], ...] | None = None
    objective: Objective = DEFAULT_OBJECTIVE
    overlap: bool = False
    modules: tuple[tuple[int, ...], ...] = ()
    several_stages: bool = False
    every_device: bool = False
    fixed_order: bool = False
    in_flight: int = 1
    ids: tuple[int, ...] = ()
    runs: tuple[int, ...] = ()
    remade: tuple[Remade, ...] = ()
    via_host: bool = False
    derived: dict[str, Problem | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def read(cls, path: str | PathLike[str], objective: Objective | str = DEFAULT_OBJECTIVE) -> Problem:
        """The problem in a file of the published format, training instances included."""
        return cls(**published.fields(path, Objective(objective)))

    def __post_init__(self) -> None:
        if not self.devices:
            raise InvalidProblem("there are no devices")
        if self.objective not in tuple(Objective):
            known = ", ".join(objective.value for objective in Objective)
            raise InvalidProblem(f"the objective is {self.objective!r}; it can be {known}")
        object.__setattr__(self, "objective", Objective(self.objective))
        if self.objective.of_loads and any(device.node_by_node for device in self.devices):
            raise InvalidProblem(f"a device that runs node by node has no load for the {self.objective.quantity}")
        if self.ids and len(set(self.ids)) != len(self.nodes):
            raise InvalidProblem(f"{len(set(self.ids))} distinct ids for {len(self.nodes)} nodes")
        kinds = 1 + max(device.kind for device in self.devices)
        for node, step in enumerate(self.nodes):
            if len(step.time) < kinds:
                raise InvalidProblem(f"node {node} has {len(step.time)} times for {kinds} kinds of devices")
        known = set(range(len(self.nodes)))
        for what, nodes in self._mentioned():
            for node in sorted({*nodes} - known)[:1]:
                raise InvalidProblem(f"{what} names node {node}; there are {len(self.nodes)}")

    def _mentioned(self) -> Iterator[tuple[str, Iterable[int]]]:
        yield "a value", (value.producer for value in self.values)
        yield "a value", chain.from_iterable(value.consumers for value in self.values)
        yield "a weight", chain.from_iterable(weight.readers for weight in self.weights)
        yield "a group", chain.from_iterable(self.groups)
        yield "a module", chain.from_iterable(self.modules)
        yield "precedence", chain.from_iterable(self.precedence or ())

    @cached_property
    def before(self) -> tuple[tuple[int, int], ...]:
        """The pairs (before, after) that stages must respect."""
        if self.precedence is not None:
            return self.precedence
        return tuple((value.producer, node) for value in self.values for node in value.consumers)

    @cached_property
    def names(self) -> tuple[int, ...]:
        """The id of each node in `stage_of`."""
        return self.ids or tuple(range(len(self.nodes)))

    @property
    def n_stages(self) -> int:
        """The number of stages: one for each device, and one more if the pipeline may end on device 0 for a group."""
        returns = self.several_stages and len(self.devices) > 1 and any(len(group) > 1 for group in self.groups)
        return len(self.devices) + returns

    def run_of(self, node: int) -> tuple[int, int]:
        """The first node of a node's program, and the one after its last."""
        if not self.runs:
            return 0, len(self.nodes)
        place = bisect_right(self.runs, node)
        return (0, *self.runs)[place], (*self.runs, len(self.nodes))[place]

    def device_of(self, stage: int) -> int:
        return stage % len(self.devices)

    def stages_on(self, devices: Sequence[int]) -> tuple[int, ...]:
        """The stages of a pipeline through these devices, in its order: the inverse of `device_of`."""
        return tuple(
            device + (len(self.devices) if device in devices[:place] else 0) for place, device in enumerate(devices)
        )

    @property
    def node_by_node(self) -> bool:
        """Whether some device runs its nodes one by one."""
        return any(device.node_by_node for device in self.devices)

    def between(self, source: int, target: int) -> Link:
        return self.links.get((source, target), self.link)


@dataclass(frozen=True)
class Load:
    """The load of a device for one batch: seconds of compute, receiving and sending, and bytes of memory."""

    compute: float = 0.0
    receive: float = 0.0
    send: float = 0.0
    memory: float = 0.0

    def seconds(self, overlap: bool = False) -> float:
        """The sum of the three times, or with `overlap` (of transfers and compute) the largest."""
        if overlap:
            return max(self.compute, self.receive, self.send)
        return self.compute + self.receive + self.send


@dataclass(frozen=True)
class Solution:
    """A split and how good it is.

    `stage_of` gives every node (by its id) a stage; `order` lists the stages in use in the order of the
    pipeline, `placement` the device of each of those. No split has a value under `lower_bound`;
    `optimal` says that this one is proven best (to 1e-6 relative).
    """

    stage_of: Mapping[int, int]
    value: float
    lower_bound: float
    optimal: bool
    order: tuple[int, ...] = ()
    placement: Mapping[int, int] = field(default_factory=dict)
    loads: tuple[Load, ...] = ()

    @property
    def gap(self) -> float:
        """The largest possible distance to the best value, relative to the value."""
        return 0.0 if self.value <= 0 else max(0.0, (self.value - self.lower_bound) / self.value)
