"""Operators grouped to modules, few enough for a screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby

import sympy

from ir.graph import Call, Graph, Node, Param
from ir.sizes import Dim, at
from ir.text.printer import op_name

LARGE = 0.1  # of the flops; smaller modules stay folded
MOST_PARTS = 36  # few enough to take in at once
MOST_A_STAGE = 6  # a piece of a module at either end, what repeats between them, and some room


class MeanSizes:
    """Expressions as numbers, on average over the calls that a graph is cut for.  Remembers, as most come often."""

    def __init__(self, graph: Graph) -> None:
        self._calls = graph.mix
        self._known: dict[Dim, int] = {}

    def at(self, dim: Dim) -> int:
        if dim not in self._known:
            known = dim is not sympy.nan
            self._known[dim] = round(sum(call.share * at(dim, call.sizes) for call in self._calls)) if known else 0
        return self._known[dim]

    def flops(self, nodes: Iterable[Call]) -> int:
        """Zero where no pass has counted them."""
        return sum(self.at(node.cost.flops) for node in nodes)


@dataclass(frozen=True, eq=False)
class Portion:
    """The operators of one stage from a module, or from several modules that repeat."""

    stage: int
    paths: tuple[str, ...]  # in the order they run; several where a repeat is folded
    nodes: tuple[Call, ...]
    own: bool = False  # only operators of the module itself, between the modules that it calls
    told: Callable[[], str] = str  # tells `which`, as most portions are opened before anybody asks

    @cached_property
    def which(self) -> str:
        """The pieces, of a module that runs in other stages too: "without mlp, add"."""
        return self.told()

    @property
    def name(self) -> str:
        """`transformer.h.0 … 5` for six blocks."""
        first, last = self.paths[0], self.paths[-1]
        return first if len(self.paths) == 1 else f"{first} … {last.rpartition('.')[2]}"


def group_modules(graph: Graph, sizes: MeanSizes) -> tuple[Portion, ...]:
    """The parts of each stage, in the order they run.

    Opens the largest modules first, all of one class together, for as long as the parts stay few.
    Transfers, and what is aside, are in no part.
    """
    aside = set(asides(graph))
    nodes = tuple(n for n in graph.nodes if isinstance(n, Call) and n not in aside)
    most = max(MOST_PARTS, MOST_A_STAGE * len(graph.placement))
    runs: tuple[_Run, ...] = (_Run("", nodes),)
    parts = _parts(runs, graph)
    kept_closed: set[str] = set()
    while kind := _next_to_open(runs, kept_closed, graph, sizes, LARGE * sizes.flops(nodes)):
        opened = tuple(r for run in runs for r in (run.inside if _kind(run, graph) == kind else (run,)))
        if len(more := _parts(opened, graph)) <= most:
            runs, parts = opened, more
        else:
            kept_closed.add(kind)
    return parts


@dataclass(frozen=True, eq=False)
class _Run:
    """A stretch of the program in which one module runs."""

    path: str
    nodes: tuple[Call, ...]
    own: bool = False  # only operators of the module itself, between the modules that it calls

    @cached_property
    def inside(self) -> tuple[_Run, ...]:
        """The modules that this one calls, and what it does between the calls."""
        if self.own:
            return (self,)
        runs = groupby(self.nodes, key=lambda node: _child(self.path, node.where.module))
        return tuple(_Run(path, tuple(nodes), path == self.path) for path, nodes in runs)

    @cached_property
    def opens(self) -> bool:
        return any(not run.own for run in self.inside)

    @cached_property
    def parts(self) -> Mapping[int, Portion]:
        """The operators of each stage that has some, by stage."""
        by_stage: dict[int, list[Call]] = {}
        for node in self.nodes:
            by_stage.setdefault(node.stage, []).append(node)
        return {
            stage: Portion(stage, (self.path,), tuple(nodes), self.own, partial(self._which_of, nodes))
            for stage, nodes in by_stage.items()
        }

    def _which_of(self, here: Sequence[Call]) -> str:
        """The pieces that are `here`; "" where all are."""
        return "" if self.own or len(here) == len(self.nodes) else self._which(frozenset(here))

    def _which(self, here: Set[Call]) -> str:
        """The names of the pieces that are `here`, or of those that are not, whichever are fewer."""
        elsewhere = frozenset(n for n in self.nodes if n not in here and not n.cheap)
        pieces, lacking = list(self._pieces(here)), list(self._pieces(elsewhere))
        if not lacking:
            return ""
        return f"without {', '.join(lacking)}" if len(lacking) < len(pieces) else f"only {', '.join(pieces)}"

    def _pieces(self, wanted: Set[Call]) -> Iterator[str]:
        """Modules of which all nodes are `wanted`, and single operators."""
        for run in self.inside:
            nodes = [n for n in run.nodes if n in wanted]
            inner = run.path.removeprefix(f"{self.path}.")
            if run.own:
                yield from operators(nodes)
            elif len(nodes) == len(run.nodes):
                yield inner
            elif nodes:
                yield from (f"{inner}.{piece}" for piece in run._pieces(wanted))


def asides(graph: Graph) -> tuple[Call, ...]:
    """The operators that make masks, positions and the like: cheap ones that read nothing else, and no layers."""
    found: dict[Node, None] = {}
    for node in graph.nodes:
        makers = (graph.producer[v] for v in node.operands if v in graph.producer)
        layer = node.cost.flops != 0 and any(isinstance(v, Param) for v in node.operands)
        if node.cheap and not layer and all(maker in found for maker in makers):
            found[node] = None
    return tuple(node for node in found if isinstance(node, Call))


def operators(nodes: Iterable[Call]) -> list[str]:
    """Names of operators that do something: `linear`, `add`."""
    return [op_name(n).split(".")[1] for n in nodes if not n.view]


def _child(module: str, path: str) -> str:
    """The path one step from a module towards another: h, h.0.attn -> h.0."""
    if path == module:
        return path
    prefix = f"{module}." if module else ""
    return prefix + path.removeprefix(prefix).split(".")[0]


def _next_to_open(runs: Sequence[_Run], kept_closed: set[str], graph: Graph, sizes: MeanSizes, large: float) -> str:
    """The kind of the largest module that still opens; "" for none.  Lists of modules come first."""
    flops: dict[str, float] = {}
    for run in runs:
        kind = _kind(run, graph)
        if run.opens and kind not in kept_closed:
            of_run = sizes.flops(run.nodes) if run.path in graph.modules else float("inf")
            flops[kind] = max(of_run, flops.get(kind, 0))
    kind = max(flops, key=lambda kind: flops[kind], default="")
    return kind if flops.get(kind, 0) >= large else ""


def _kind(run: _Run, graph: Graph) -> str:
    """The class of a module.  A list of modules is never called and has only its path."""
    return graph.modules.get(run.path, run.path) or "the model"


def _parts(runs: Sequence[_Run], graph: Graph) -> tuple[Portion, ...]:
    """The portions of each stage, repeats as one."""
    stages = range(len(graph.placement))
    parts = _without_views([part for stage in stages for run in runs if (part := run.parts.get(stage))], graph)
    alike = groupby(parts, key=lambda part: _repeated(part, graph))
    return tuple(part for kind, same in alike for part in ([_merge(list(same))] if kind else same))


def _without_views(parts: Sequence[Portion], graph: Graph) -> list[Portion]:
    """Views that stand alone go to the part that reads them, or else to the one that they look into."""
    part_of = {node: part for part in parts for node in part.nodes}
    taken: dict[Portion, tuple[Call, ...]] = {}
    gone: set[Portion] = set()
    for part in parts:
        if part.own and not operators(part.nodes):
            readers = (user for v in part.nodes[-1].results for user in graph.users.get(v, ()))
            makers = (graph.producer.get(v) for v in part.nodes[0].operands)
            homes = (part_of[n] for n in (*readers, *makers) if isinstance(n, Call) and n in part_of)
            home = next((p for p in homes if p.stage == part.stage and p not in gone and p is not part), None)
            if home:
                taken[home] = (*taken.get(home, home.nodes), *taken.get(part, part.nodes))
                gone.add(part)
    return [replace(p, nodes=taken.get(p, p.nodes)) for p in parts if p not in gone]


def _repeated(part: Portion, graph: Graph) -> tuple[object, ...]:
    """Equal for neighbours in a list of modules of one class; empty for what is not in a list."""
    parent, _, index = part.paths[0].rpartition(".")
    kind = graph.modules.get(part.paths[0], "")
    return (part.stage, parent, kind, part.which) if index.isdigit() and kind and not part.own else ()


def _merge(parts: Sequence[Portion]) -> Portion:
    paths = tuple(path for part in parts for path in part.paths)
    return Portion(parts[0].stage, paths, tuple(n for part in parts for n in part.nodes), told=parts[0].told)
