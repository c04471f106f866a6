"""A plan for a mix of sizes: the cut is the best for the weighted times, and fits at the largest sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement
from math import inf
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.analysis.memory import peak_bytes
from ir.analysis.programs import merged, program_of
from ir.cost import Cost
from ir.errors import CompileError, PlanError
from ir.graph import Call, Graph, Value
from ir.machine.cluster import Cluster
from ir.plan import plan_stages
from ir.sizes import CallSizes
from passes.compilation.sizes.workload import with_workload
from passes.compilation.summary import summarize
from passes.cut.cut_problem import as_problem
from passes.options.options import Options
from passes.options.sizes import WantedCall, read_workload
from passes.partitioners.problem import InvalidSplit, evaluate
from passes.partitioners.problem.evaluation import loads
from passes.split_stages import SplitStages
from tests.support.models.graphs import aten, captured, graph, typed, value
from tests.support.models.planning import planned, slow_machine

batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))
amounts = st.integers(0, 5)


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    """Nodes in a row whose times and results grow with the batch or with the sequence, and a mix of calls."""
    source = x = value("x", batch, 4)
    nodes = []
    for i in range(draw(st.integers(3, 6))):
        made = Value(f"y{i}", typed(draw(st.sampled_from((batch, seq, batch * seq))), draw(st.integers(1, 4))))
        cost = Cost(0, 1000 * (draw(amounts) * batch + draw(amounts) * seq + draw(amounts)))
        nodes.append(Call(op=aten.relu.default, args=(source,), results=(made,), cost=cost))
        source = made
    sizes, weights = st.integers(1, 20), st.integers(1, 4)
    wanted = [
        WantedCall({"batch": draw(sizes), "seq": draw(sizes)}, draw(weights)) for _ in range(draw(st.integers(1, 3)))
    ]
    one = graph([x], nodes, [source], hints={batch: 4, seq: 8}, ranges={batch: (1, None), seq: (1, None)})
    return with_workload(one, wanted)


def alone(graph: Graph) -> list[tuple[float, Graph]]:
    """The graph for each call of its workload alone, with the share of that call."""
    return [(call.share, replace(graph, workload=(replace(call, share=1.0),))) for call in graph.workload]


def best_cut(graph: Graph, cluster: Cluster) -> float:
    """The least weighted bottleneck of all cuts that fit at each of the sizes."""
    n, devices, best = len(graph.nodes), len(cluster.devices), inf
    problems = [(share, as_problem(one, cluster)) for share, one in alone(graph)]
    for ends in combinations_with_replacement(range(n + 1), devices - 1):
        stages = [sum(node >= end for end in ends) for node in range(n)]
        try:
            for _, problem in problems:
                evaluate(problem, stages)
        except InvalidSplit:
            continue
        of_call = [[share * load.seconds() for load in loads(problem, stages)] for share, problem in problems]
        best = min(best, max(map(sum, zip(*of_call, strict=True))))
    return best


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(chains(), st.integers(2, 3), st.sampled_from((inf, 400.0, 1000.0)))
def test_no_cut_that_fits_has_a_smaller_weighted_bottleneck(graph: Graph, devices: int, memory: float) -> None:
    cluster = slow_machine(devices, memory=memory)
    best = best_cut(graph, cluster)
    try:
        cut = SplitStages(slack=0.0).run(graph, cluster)
    except PlanError:
        assert best == inf
        return
    assert cut.split.value == pytest.approx(best)


def test_the_numbers_of_a_plan_are_those_of_the_mix() -> None:
    graph = with_workload(captured("long skips"), read_workload("batch=2:3;batch=40,seq=9"))
    done = planned(graph, slow_machine(2))
    summary = summarize(plan_stages(done, slow_machine(2)), "model")
    assert [(call.sizes, call.share) for call in summary.calls] == [
        ({"batch": 2, "seq": 4}, 0.75),
        ({"batch": 40, "seq": 9}, 0.25),
    ]
    each = [summarize(plan_stages(one, slow_machine(2)), "model") for _, one in alone(done)]
    assert [call.bottleneck_seconds for call in summary.calls] == [one.bottleneck_seconds for one in each]
    for name in ("compute_seconds", "receive_seconds", "send_seconds"):
        [few, many] = [[getattr(stage, name) for stage in one.stages] for one in each]
        mean = [0.75 * a + 0.25 * b for a, b in zip(few, many, strict=True)]
        assert [getattr(stage, name) for stage in summary.stages] == pytest.approx(mean)
    assert summary.cut_bytes == 0.75 * each[0].cut_bytes + 0.25 * each[1].cut_bytes
    assert [s.activation_bytes for s in summary.stages] == [s.activation_bytes for s in each[1].stages]


def test_sizes_that_a_call_does_not_name_are_those_of_the_example() -> None:
    x = value("x", batch, seq)
    one = graph([x], [], [], hints={batch: 4, seq: 8}, ranges={batch: (1, 64), seq: (1, None)})
    assert one.mix == (CallSizes({batch: 4, seq: 8}),)
    assert with_workload(one, read_workload({"seq": 100})).mix == (CallSizes({batch: 4, seq: 100}),)
    assert peak_bytes(replace(one, outputs=(x,), workload=(CallSizes({batch: 2, seq: 3}),))) == 4 * 2 * 3


def test_a_name_is_that_of_each_program() -> None:
    """`seq` of the second program has another size in its example, and so another name in the graph of both."""
    parts = [graph([], [], [], hints={seq: n}, ranges={seq: (1, None)}) for n in (8, 16)]
    both = merged([(name, {}, 1.0, part) for name, part in zip(("first", "wide"), parts, strict=True)])
    assert [program_of(with_workload(both, read_workload("seq=5")), i).mix for i in (0, 1)] == [
        (CallSizes({seq: 5}),),
        (CallSizes({seq: 5}),),
    ]
    differ = with_workload(both, read_workload("seq=5,seq_wide=6"))
    assert [program_of(differ, i).mix[0].sizes for i in (0, 1)] == [{seq: 5}, {seq: 6}]


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ("length=3", "the workload names length; the sizes that may change are batch, seq"),
        ("batch=65", "the workload has batch=65; batch may be 1 to 64"),
        ("seq=0", "the workload has seq=0; seq may be 1 or more"),
        ("batch=3,seq=8;seq=9", "the workload has seq=9; the model asks for seq % 4 == 0"),
    ],
)
def test_sizes_that_the_model_does_not_take(workload: str, message: str) -> None:
    guards = (sympy.Eq(sympy.Mod(seq, 4), 0),)
    one = graph([], [], [], hints={batch: 4, seq: 8}, ranges={batch: (1, 64), seq: (1, None)}, guards=guards)
    with pytest.raises(CompileError, match=f"^{message}$"):
        with_workload(one, read_workload(workload))


def test_a_model_without_dynamic_sizes_has_no_workload() -> None:
    with pytest.raises(CompileError, match="the workload names batch; no size of this model may change: --dynamic"):
        with_workload(graph([], [], []), read_workload("batch=2"))


TEXTS = ["", "batch", "batch=1;", "batch=1,batch=2", "batch=-1", "batch=1:much"]
NUMBERS = [3, {}, {"batch": 2.5}, {"batch": True}, {1: 2}, [{"batch": 1, "seq": 2}], [({"batch": 1}, "much")]]


@pytest.mark.parametrize("given", [*TEXTS, *NUMBERS])
def test_what_is_no_workload(given: Any) -> None:
    with pytest.raises(CompileError, match="it must be sizes such as batch=1,seq=4096, or several with weights"):
        Options(workload=given)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_weights_are_above_zero(weight: str) -> None:
    with pytest.raises(CompileError, match=f"the workload gives batch=1 the weight {weight}; weights are numbers abov"):
        Options(workload=f"batch=2;batch=1:{weight}")  # type: ignore[arg-type]


def test_a_workload_is_given_alike_as_a_text_and_as_numbers() -> None:
    text = Options(workload="batch=1,seq=4096:0.7; batch=32,seq=512:0.3")  # type: ignore[arg-type]
    pairs = [({"batch": 1, "seq": 4096}, 0.7), ({"batch": 32, "seq": 512}, 0.3)]
    assert text == Options(workload=pairs)  # type: ignore[arg-type]
