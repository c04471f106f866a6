"""The cut that split-stages chooses: best by brute force, within memory, for the devices given."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
import torch

from ir.cost import Cost
from ir.errors import CompileError, PlanError
from ir.graph import Graph, Node
from ir.machine.cluster import Cluster, Link
from passes.cost_models.predictions import Predictions
from passes.cut.cut_problem import as_problem
from passes.group_shared import GroupShared
from passes.insert_transfers import InsertTransfers
from passes.split_stages import SplitStages
from tests.support.models.graphs import add, graph, linear, param, relu, state, value
from tests.support.models.planning import DEVICE, LINK, cut, machine

x = value("x")
MILLISECOND = int(1e-3 * DEVICE.bandwidth)  # in bytes of traffic


def work(node: Node, milliseconds: float) -> Node:
    return replace(node, cost=Cost(0, int(milliseconds * MILLISECOND)))


def chain(*milliseconds: float, group: str = "") -> Graph:
    """Linear layers that take so long, each with a weight of its own of 64 bytes."""
    nodes: list[Node] = []
    source = x
    for i, time in enumerate(milliseconds):
        nodes.append(work(linear(source, param(f"w{i}"), f"y{i}"), time))
        [source] = nodes[-1].results
    return graph([x], nodes, [source])


def split(graph: Graph, cluster: Cluster, **options: object) -> Graph:
    return SplitStages(**options).run(graph, cluster)  # type: ignore[arg-type]


def stages(graph: Graph) -> list[int]:
    return [node.stage for node in graph.nodes]


def test_work_is_shared_evenly() -> None:
    assert stages(split(chain(1, 1, 1, 3, 3, 3), machine(2))) == [0, 0, 0, 0, 1, 1]
    assert stages(split(chain(6, 1, 1, 1, 1, 1), machine(2))) == [0, 1, 1, 1, 1, 1]
    assert stages(split(chain(1, 1, 1, 1), machine(4))) == [0, 1, 2, 3]


def test_links_that_are_alike_are_one_link_of_the_problem() -> None:
    """Then loads along a pipeline are no estimates, and a search ends where no split is better than a known one."""
    alike, slower = machine(3), Link(LINK.bandwidth / 2, LINK.latency)
    problem = as_problem(chain(1, 1, 1), alike)
    assert (problem.link.bandwidth, problem.link.latency) == (LINK.bandwidth, LINK.latency)
    assert not problem.links
    others = as_problem(chain(1, 1, 1), replace(alike, links={**alike.links, (0, 2): slower}))
    assert others.link == problem.link
    assert others.links.keys() == {(0, 2)}


def test_one_device_is_one_stage() -> None:
    found = split(chain(1, 1), machine(1))
    assert stages(found) == [0, 0]
    assert found.placement == (0,)


DIAMONDS = {
    "a diamond": ((1, 2, 2, 1), ((0,), (0,), (1, 2))),
    "two chains": ((1, 3, 2, 2, 1), ((), (0,), (), (2,))),
    "a ladder": ((2, 1, 1, 2, 1), ((0,), (0, 1), (1, 2), (3, 0))),
}


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("what", DIAMONDS)
def test_no_other_cut_is_better(what: str, devices: int) -> None:
    """Each node reads the sum of some earlier ones; all cuts are tried, with the time of each device recomputed."""
    times, reads = DIAMONDS[what]
    nodes: list[Node] = [work(relu(x, "y0"), times[0])]
    for i, (time, sources) in enumerate(zip(times[1:], reads, strict=True), 1):
        operands = [nodes[s].results[0] for s in sources] or [x]
        nodes.append(work(add(operands[0], operands[-1], f"y{i}"), time))
    whole = graph([x], nodes, [n.results[0] for n in nodes])
    found = split(whole, machine(devices))
    best = min(bottleneck(cut(whole, s)) for s in assignments(whole, devices))
    assert found.split.value == pytest.approx(best)
    assert found.split.lower_bound == pytest.approx(best)
    assert bottleneck(found) == pytest.approx(best)


def assignments(graph: Graph, devices: int) -> list[tuple[int, ...]]:
    """Every choice of stages that uses all of them and sends nothing back."""
    order = {v: i for i, node in enumerate(graph.nodes) for v in node.results}
    edges = [(order[v], i) for i, node in enumerate(graph.nodes) for v in node.operands if v in order]
    choices = product(range(devices), repeat=len(graph.nodes))
    return [c for c in choices if len(set(c)) == devices and all(c[a] <= c[b] for a, b in edges)]


def bottleneck(graph: Graph) -> float:
    """Seconds of the busiest device: its nodes, what it receives and what it sends."""
    connected = InsertTransfers().run(graph, machine(len(graph.placement)))
    predicted, load = Predictions(graph), [0.0] * len(graph.placement)
    for node in connected.nodes:
        if node in graph.nodes or not hasattr(node, "src"):
            load[node.stage] += predicted.seconds([node], DEVICE)
        else:
            for end in (node.src, node.stage):  # type: ignore[union-attr]
                load[end] += LINK.seconds(predicted.nbytes(node.value))  # type: ignore[union-attr]
    return max(load)


def test_a_dear_link_is_worth_an_uneven_cut() -> None:
    """The even cut would send a value that takes 4 ms over the link."""
    wide = chain(1, 1, 1, 1)
    slow = Cluster.uniform((DEVICE,) * 2, Link(bandwidth=LINK.bandwidth, latency=0.004))
    assert split(wide, slow).split.value == pytest.approx(0.006, rel=0.01)
    assert {n.stage for n in wide.nodes} == {0}


def test_a_faster_device_gets_more() -> None:
    cluster = Cluster.uniform((DEVICE, replace(DEVICE, bandwidth=3 * DEVICE.bandwidth)), LINK)
    found = split(chain(*[1.0] * 8), cluster)
    assert sorted(stages(found).count(s) for s in (0, 1)) == [2, 6]
    fast = found.placement.index(1)
    assert stages(found).count(fast) == 6


def test_a_group_stays_on_one_device() -> None:
    nodes = [replace(n, group="tied" if i in (0, 3) else "") for i, n in enumerate(chain(1, 4, 4, 1).nodes)]
    found = split(graph([x], nodes, nodes[-1].results), machine(2))
    assert found.placement == (0, 1, 0)
    assert stages(found)[0] == 0
    assert stages(found)[3] == 2


@pytest.mark.parametrize(
    ("times", "placement"),
    [
        ((3, 6, 3), (0, 1, 0)),  # both ends on one device: 6 ms in place of 9
        ((3, 3, 3, 3), (0, 1)),  # nothing to win
        ((3, 3.06, 3), (0, 1)),  # 6 ms in place of 6.06 are not worth a third stage
    ],
)
def test_a_separable_group_stays_together_where_that_pays(times: tuple[float, ...], placement: tuple[int, ...]) -> None:
    nodes = [replace(n, group="tied" if i in (0, len(times) - 1) else "") for i, n in enumerate(chain(*times).nodes)]
    tied = graph([x], nodes, nodes[-1].results, separable=frozenset({"tied"}))
    assert split(tied, machine(2)).placement == placement


def test_a_state_stays_in_one_stage() -> None:
    cache = state("cache")
    read = work(replace(add(x, cache, "read"), group="cache"), 1)
    middle = work(relu(read.results[0], "middle"), 4)
    write = work(replace(add(middle.results[0], cache, "write"), group="cache"), 1)
    after = work(relu(write.results[0], "after"), 1)
    stateful = graph([x], [read, middle, write, after], after.results, updates=((cache, write.results[0]),))
    assert stages(split(stateful, machine(2))) == [0, 0, 0, 1]


def test_latency_takes_the_fewest_transfers() -> None:
    nodes = chain(1, 1, 1, 1)
    throughput, latency = (split(nodes, machine(2), objective=o) for o in ("throughput", "latency"))
    assert stages(throughput) == [0, 0, 1, 1]
    assert latency.split.value == pytest.approx(0.004 + LINK.seconds(32) + 4 * DEVICE.launch, rel=0.01)


# ---- what does not fit


def limited(memory: int, devices: int = 2) -> Cluster:
    return Cluster.uniform((replace(DEVICE, memory=memory),) * devices, LINK)


def test_memory_moves_the_cut() -> None:
    """Even work would put five weights of 64 bytes on the first device, which has room for four."""
    times = (1, 1, 1, 1, 1, 5)
    assert stages(split(chain(*times), machine(2))) == [0, 0, 0, 0, 0, 1]
    assert stages(split(chain(*times), limited(4 * 64 + 2 * 32))) == [0, 0, 0, 0, 1, 1]


def test_too_little_memory_says_what_would_do() -> None:
    message = (
        r"cpu needs \d+ B and has 200 B; the largest part that cannot be divided is w\d \(\d+ B\)\. "
        r"It fits on 2 devices of 256 B, or on 3 devices of 200 B\."
    )
    with pytest.raises(PlanError, match=message):
        split(chain(1, 1, 1, 1, 1, 1), limited(200))
    split(chain(1, 1, 1, 1, 1, 1), limited(256))
    split(chain(1, 1, 1, 1, 1, 1), limited(200, devices=3))


def test_the_first_of_weights_of_one_size_is_named() -> None:
    """Not any of them, as Python's sets are in another order in each process."""
    together = replace(relu(x, "y"), op=torch.ops.aten.cat.default, args=([param(f"w{i}") for i in range(30)],))
    with pytest.raises(PlanError, match=re.escape("cannot be divided is w0 (")):
        split(graph([x], [together, relu(x, "z")], together.results), limited(200))


def test_more_stages_than_nodes() -> None:
    with pytest.raises(PlanError, match=re.escape("no plan for 3 devices: ")):
        split(chain(1, 1), machine(3))


def test_the_buffer_that_ties_all_together_is_named() -> None:
    last = state("last")
    first = add(x, last, "first")
    second = relu(first.results[0], "second")
    whole = graph([x], [first, second], second.results, updates=((last, second.results[0]),))
    message = "`last`, a buffer that forward changes, ties together 2 of its 2 operators; ask for fewer stages"
    with pytest.raises(PlanError, match=re.escape(message)):
        split(GroupShared().run(whole, machine(2)), machine(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_flight": 0}, "in-flight is 0; it must be 1 or more"),
        ({"slack": 1.0}, "slack is 1.0; it must be a share from 0 to less than 1"),
        ({"time_limit": float("nan")}, "time-limit is nan; it must be a number of seconds, 0 or more"),
    ],
)
def test_an_option_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(CompileError, match=f"^{message}$"):
        SplitStages(**options)  # type: ignore[arg-type]


def test_what_is_computed_of_weights_alone_is_computed_where_it_is_read() -> None:
    """A cut between a weight and its product would share the time evenly, and send the weight."""
    first, made = work(linear(x, param("a"), "y0"), 1), work(linear(param("w"), param("v"), "made"), 4)
    again = work(relu(made.results[0], "again"), 1)
    last = work(add(first.results[0], again.results[0], "y1"), 4)
    nodes = [first, made, again, last]
    assert stages(split(graph([x], nodes, last.results), machine(2))) == [0, 1, 1, 1]
    third = add(last.results[0], made.results[0], "y2")
    problem = as_problem(graph([x], [*nodes, third], third.results), machine(2))
    assert problem.groups == ((2, 3),)  # the other is read twice
