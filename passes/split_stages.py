"""split-stages: the stage of every node and the device of every stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from ir.analysis.called_modules import module_nodes, place_of_cuts
from ir.analysis.verify import costed
from ir.cost import Binds, Split
from ir.errors import CompileError, PlanError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.process.shared_work import shared_work
from passes.cut.cut_problem import as_problem, even_share, fits, infeasible
from passes.cut.largest_room import with_largest_room
from passes.cut.named_cuts import between_modules, cut_before
from passes.options.options import CutAt, Options
from passes.partitioners import check_capacity, plainest, solve
from passes.partitioners.problem import Infeasible, Load, Objective, Problem, Solution, crossing

_WORTHWHILE = 0.02  # gain, as a share of the bottleneck, for which a device gets two stages
_ROOM_TRY = 3.0  # seconds for each search with another number of pages
_SECOND_TRY = 10.0  # seconds for the search without copies, which is seldom better


@dataclass(frozen=True)
class SplitStages:
    """A contiguous cut for the devices of the cluster, each of which gets a stage.

    It is the plainest one whose value is at most `slack` above the best, a share of that.
    """

    objective: Objective = Options.objective
    slack: float = Options.slack
    cut_at: CutAt = Options.cut_at
    cut_before: tuple[str, ...] = Options.cut_before
    in_flight: int = Options.in_flight
    time_limit: float = Options.time_limit

    name: ClassVar = "split-stages"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def __post_init__(self) -> None:
        if self.in_flight < 1:
            raise CompileError(f"in-flight is {self.in_flight}; it must be 1 or more")
        if not 0 <= self.slack < 1:
            raise CompileError(f"slack is {self.slack}; it must be a share from 0 to less than 1")
        if not self.time_limit >= 0:  # nan, too
            raise CompileError(f"time-limit is {self.time_limit}; it must be a number of seconds, 0 or more")

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        if graph.decoding.most_texts:
            quick = replace(self, time_limit=min(self.time_limit, _ROOM_TRY))
            graph = with_largest_room(graph, lambda tried: quick._best(tried, cluster)[1][0].value)
        graph, (best, binds) = self._best(graph, cluster)
        problem = as_problem(graph, cluster, Objective(self.objective), self.in_flight)
        found = self._chosen(graph, cluster, problem, best)
        stage_at = {stage: i for i, stage in enumerate(found.order)}
        stages = [stage_at[found.stage_of[i]] for i in range(len(graph.nodes))]
        return replace(
            graph,
            nodes=tuple(replace(n, stage=stage) for n, stage in zip(graph.nodes, stages, strict=True)),
            placement=tuple(found.placement[stage] for stage in found.order),
            split=Split(
                objective=Objective(self.objective).value,
                quantity=Objective(self.objective).quantity,
                in_flight=self.in_flight,
                value=found.value,
                best=min(best.value, found.value),
                best_bytes=crossing(problem, best.stage_of).bytes,
                place=place_of_cuts(module_nodes(graph), stages),
                lower_bound=best.lower_bound,
                binds=binds,
                loads=tuple(load.seconds() for load in found.loads),
            ),
        )

    def _chosen(self, graph: Graph, cluster: Cluster, problem: Problem, best: Solution) -> Solution:
        """The split that the user asks for: the plainest that is nearly as good as the best, or one cut at modules."""
        if self.cut_before:
            return cut_before(graph, problem, self.cut_before)
        if CutAt(self.cut_at) is CutAt.between_modules:
            problem = between_modules(graph, problem)
            try:
                best = solve(problem, self.time_limit, shared_work)
            except Infeasible as e:
                raise infeasible(e, graph, cluster) from e
        return plainest(problem, best, self.slack, share=shared_work) if self.slack else best

    def _best(self, graph: Graph, cluster: Cluster) -> tuple[Graph, tuple[Solution, Binds]]:
        """The graph with the groups that the best split keeps together, and that split.

        Shared parameters that copies may replace are tried both ways: copied, and kept once where the
        copies do not fit, or where one copy is faster by enough to be worth a device with two stages.
        """
        together = replace(graph, separable=frozenset())
        if not graph.separable:
            return graph, self._solve(graph, cluster)
        try:
            apart = self._solve(graph, cluster)
        except PlanError:
            return together, self._solve(together, cluster)
        if not _copies(graph, apart[0]):
            return together, apart
        worthwhile = (1 - _WORTHWHILE) * apart[0].value
        if even_share(as_problem(together, cluster)) >= worthwhile:
            return graph, apart  # no split with one copy is better by enough
        try:
            one_copy = replace(self, time_limit=min(self.time_limit, _SECOND_TRY))._solve(together, cluster)
        except PlanError:
            return graph, apart
        return (together, one_copy) if one_copy[0].value < worthwhile else (graph, apart)

    def _solve(self, graph: Graph, cluster: Cluster) -> tuple[Solution, Binds]:
        """The best split, and what keeps it from being better.  Raises PlanError if none fits.

        If the best split for unlimited memory fits, it is the best of all.
        """
        problem = as_problem(graph, cluster, Objective(self.objective), self.in_flight)
        roomy = replace(problem, devices=tuple(replace(d, memory=inf) for d in problem.devices))
        try:
            check_capacity(problem)
            free = solve(roomy, self.time_limit, shared_work)
            if fits(problem, free.stage_of):
                return free, _busiest(free)
            capped = solve(problem, self.time_limit, shared_work)
        except Infeasible as e:
            raise infeasible(e, graph, cluster) from e
        better_bound = max(capped.lower_bound, free.lower_bound)
        return replace(capped, lower_bound=min(better_bound, capped.value)), "memory"


def _busiest(found: Solution) -> Binds:
    """Whether the busiest device spends most of its time on computing or on transfers."""
    load = max(found.loads, key=Load.seconds)
    return "compute" if load.compute >= load.receive + load.send else "link"


def _copies(graph: Graph, found: Solution) -> bool:
    """Whether a split puts the readers of a shared parameter on several devices."""
    devices: dict[str, set[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.group in graph.separable:
            devices.setdefault(node.group, set()).add(found.placement[found.stage_of[i]])
    return any(len(on) > 1 for on in devices.values())
