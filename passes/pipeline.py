"""Passes, and pipelines of them that check invariants as they run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from ir.analysis.programs import by_program
from ir.analysis.verify import Invariant, culprit_shown, staged, stateful, well_formed
from ir.autocast import without_autocast
from ir.errors import PipelineError, VerifyError
from ir.graph import Graph
from ir.machine.cluster import Cluster


class Pass(Protocol):
    """A pure function from graph to graph, a frozen dataclass whose fields are its options.

    `requires` are invariants that must hold before it, `ensures` those that hold from here on.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[Invariant, ...]]
    ensures: ClassVar[tuple[Invariant, ...]]

    def run(self, graph: Graph, cluster: Cluster) -> Graph: ...


@runtime_checkable
class LooksAt(Protocol):
    """A pass that depends on a part of the machine: machines that are equal in it get equal graphs."""

    def looks_at(self, cluster: Cluster) -> Hashable: ...


_P = TypeVar("_P", bound=Pass)


def each_program(run: Callable[[_P, Graph, Cluster], Graph]) -> Callable[[_P, Graph, Cluster], Graph]:
    """A decorator of `Pass.run`, for a pass that looks at one program at a time."""

    @wraps(run)
    def run_each(self: _P, graph: Graph, cluster: Cluster) -> Graph:
        return by_program(graph, lambda program: run(self, program, cluster))

    return run_each


@dataclass(frozen=True)
class PassResult:
    """The result of one pass, and the seconds that it took."""

    name: str
    graph: Graph
    seconds: float


_ALWAYS: tuple[Invariant, ...] = (well_formed, staged, stateful)


@dataclass(frozen=True)
class PassPipeline:
    """Passes in order.  Raises PipelineError where one requires what none before it ensures.

    Over several machines, a pass runs once for those that it cannot tell apart.
    """

    passes: tuple[Pass, ...]
    _known: dict[Hashable, tuple[Graph, Graph]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        held = set(_ALWAYS)
        for p in self.passes:
            for need in p.requires:
                if need not in held:
                    raise PipelineError(
                        f"{p.name} requires a {need.__name__} graph; put a pass that ensures it earlier"
                    )
            held.update(p.ensures)

    def until(self, name: str) -> PassPipeline:
        """The passes up to and including `name`.  Raises PipelineError for an unknown name."""
        return PassPipeline(self.passes[: self.index(name) + 1])

    def index(self, name: str) -> int:
        """The place of the pass `name`.  Raises PipelineError for an unknown name."""
        names = [p.name for p in self.passes]
        if name not in names:
            raise PipelineError(f"no pass is named {name!r}; there are {', '.join(names)}")
        return names.index(name)

    def run(self, graph: Graph, cluster: Cluster) -> Iterator[PassResult]:
        """The result of each pass in turn.  Raises VerifyError where it breaks an invariant ensured so far."""
        held = dict.fromkeys(_ALWAYS)
        for i, p in enumerate(self.passes):
            start = perf_counter()
            held |= dict.fromkeys(p.ensures)
            graph = self._once(i, graph, cluster, held)
            yield PassResult(p.name, graph, perf_counter() - start)

    def _once(self, place: int, graph: Graph, cluster: Cluster, held: Iterable[Invariant]) -> Graph:
        """The result of a pass, which may be known from another machine."""
        p = self.passes[place]
        if not isinstance(p, LooksAt):
            return _checked(p, graph, cluster, held)
        seen = (place, id(graph), p.looks_at(cluster))
        if seen not in self._known:
            self._known[seen] = graph, _checked(p, graph, cluster, held)
        return self._known[seen][1]


def _checked(p: Pass, graph: Graph, cluster: Cluster, held: Iterable[Invariant]) -> Graph:
    """The result of a pass.  Raises VerifyError where it breaks an invariant."""
    with culprit_shown(graph), without_autocast():
        found = p.run(graph, cluster)
    for invariant in held:
        try:
            invariant(found)
        except VerifyError as e:
            raise VerifyError(f"after {p.name}, the graph is not {invariant.__name__}: {e}") from None
    return found
