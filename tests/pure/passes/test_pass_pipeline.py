"""Passes run in an order that is checked, and what one breaks is found right after it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from ir.analysis.verify import Invariant
from ir.errors import InternalError, PipelineError, PlanError, VerifyError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.text.printer import print_graph
from passes.annotate_cost import AnnotateCost
from passes.defaults import DEFAULT_PASSES, default_passes
from passes.partitioners.problem import Objective
from passes.pipeline import PassPipeline
from passes.split_stages import SplitStages
from tests.support.models.graphs import captured, graph, relu, value
from tests.support.models.planning import machine, slow_machine

x = value("x")
a = relu(x, "a")
b = relu(a.results[0], "b")
GRAPH = graph([x], [a, b], b.results)


@dataclass(frozen=True)
class Rewrite:
    """A pass made of any function."""

    change: Callable[[Graph], Graph]

    name: ClassVar = "rewrite"
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        return self.change(graph)


def test_an_order_that_cannot_run_is_refused_before_anything_runs() -> None:
    with pytest.raises(PipelineError, match="split-stages requires a costed graph; put a pass that ensures it earlier"):
        PassPipeline((SplitStages(), AnnotateCost()))
    PassPipeline((AnnotateCost(), SplitStages()))


def test_a_pass_that_is_not_there() -> None:
    known = ", ".join(p.name for p in DEFAULT_PASSES)
    with pytest.raises(PipelineError, match=re.escape(f"no pass is named 'fuse'; there are {known}")):
        PassPipeline(default_passes()).until("fuse")


def test_the_first_passes_alone() -> None:
    pipeline = PassPipeline(default_passes()).until("annotate-cost")
    first = ["simplify-masks", "share-heads", "fuse-attention", "fuse-quantized", "fuse-elementwise"]
    assert [p.name for p in pipeline.passes] == [*first, "propagate-shapes", "follow-rows", "annotate-cost"]


def test_a_step_for_each_pass() -> None:
    steps = list(PassPipeline(default_passes()).run(captured("long skips"), machine(2)))
    assert [step.name for step in steps] == [p.name for p in DEFAULT_PASSES]
    assert all(step.seconds >= 0 for step in steps)
    assert [len(step.graph.placement) for step in steps] == [1] * 10 + [2] * 4


def test_passes_do_not_change_the_graph_that_they_are_given() -> None:
    first = captured("a value read by three stages")
    texts = {}
    before = print_graph(first)
    for step in PassPipeline(default_passes()).run(first, slow_machine(4)):
        texts[step.name] = (step.graph, print_graph(step.graph))
    assert print_graph(first) == before
    assert all(print_graph(later) == text for later, text in texts.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, nodes=g.nodes[::-1]), "after rewrite, the graph is not well_formed: a is used before"),
        (
            lambda g: g.map(lambda n: replace(n, stage=1)),
            "after rewrite, the graph is not staged: stage 1 has no",
        ),
    ],
)
def test_what_a_pass_breaks_is_found_right_after_it(change: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        list(PassPipeline((Rewrite(change),)).run(GRAPH, machine(1)))


def test_what_a_pass_breaks_is_shown_in_what_it_left() -> None:
    with pytest.raises(VerifyError, match=re.escape("\n    > b: float32[2, 4] = aten.relu(a)  # stage=1")):
        list(PassPipeline((Rewrite(lambda g: replace(g, nodes=(a, replace(b, stage=1)))),)).run(GRAPH, machine(1)))


def test_what_a_pass_refuses_is_shown_in_what_it_was_given() -> None:
    def refuse(graph: Graph) -> Graph:
        raise PlanError("too large", graph.nodes[1])

    with pytest.raises(PlanError, match=re.escape("too large\n  at the model (an unknown source line)\n")) as raised:
        list(PassPipeline((Rewrite(refuse),)).run(GRAPH, machine(1)))
    assert str(raised.value).endswith("\n    > b: float32[2, 4] = aten.relu(a)")


def test_what_an_earlier_pass_ensured_holds_on() -> None:
    lose_costs = Rewrite(lambda g: replace(g, nodes=GRAPH.nodes))
    with pytest.raises(VerifyError, match="after rewrite, the graph is not costed: no cost"):
        list(PassPipeline((AnnotateCost(), lose_costs)).run(GRAPH, machine(1)))


def test_a_broken_invariant_is_a_fault_of_ours() -> None:
    assert issubclass(VerifyError, InternalError)


def test_an_option_goes_to_the_pass_that_has_it() -> None:
    passes = {p.name: p for p in default_passes(objective="latency", in_flight=4)}
    split = passes["split-stages"]
    assert isinstance(split, SplitStages)
    assert (Objective(split.objective), split.in_flight) == (Objective.latency, 4)


def test_an_option_that_no_pass_has() -> None:
    with pytest.raises(TypeError, match=r"no pass has an option 'speed'; there are .*objective.*shared"):
        default_passes(speed=3)
