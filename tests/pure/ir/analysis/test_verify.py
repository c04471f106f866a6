"""Each invariant tells a broken graph from a whole one, and names what is broken."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ir.analysis.verify import Invariant, connected, costed, staged, stateful, well_formed
from ir.cost import FREE
from ir.errors import VerifyError
from ir.graph import Call, Graph, Transfer, Value
from ir.location import Where
from tests.support.models.graphs import aten, graph, relu, state, value

x = value("x")
a = relu(x, "a", cost=FREE, where=Where("encoder.act", "model.py", 7, "x = self.act(x)"))
b = relu(a.results[0], "b", cost=FREE, stage=1)
moved = Transfer(value=a.results[0], src=0, stage=1, results=(value("a_on1"),), cost=FREE)
c = relu(moved.results[0], "c", cost=FREE, stage=1)
WHOLE = graph([x], [a, moved, c], c.results, placement=(0, 1))

cache = state("cache")
read = relu(cache, "read")
write = relu(read.results[0], "write")
STATEFUL = graph([x], [read, write], write.results, updates=((cache, write.results[0]),))


def two(**fields: object) -> Graph:
    return replace(graph([x], [a, b], b.results, placement=(0, 1)), **fields)


BROKEN: dict[str, tuple[Invariant, Graph, str]] = {
    "a use before the definition": (well_formed, two(nodes=(b, a)), "a is used before it is defined\n  at the model"),
    "two definitions": (
        well_formed,
        two(nodes=(a, a, b)),
        "a is defined twice\n  at encoder.act (model.py:7): x =",
    ),
    "an input as an output": (well_formed, two(outputs=(x,)), "output x is made by no node"),
    "an output that is gone": (well_formed, two(nodes=(a,)), "output b is made by no node"),
    "two values of one name": (well_formed, two(inputs=(x, value("b"))), "two values are named b"),
    "no cost": (costed, STATEFUL, "no cost\n  at the model"),
    "a stage without a device": (staged, two(placement=(0,)), "stage 1 has no device\n  at the model"),
    "a group on two devices": (
        staged,
        two(nodes=(replace(a, group="tied"), replace(b, group="tied"))),
        "group tied spans devices 0 and 1",
    ),
    "an edge that goes back": (
        staged,
        two(nodes=(replace(a, stage=1), replace(b, stage=0))),
        "a flows back to stage",
    ),
    "a state in two stages": (
        stateful,
        replace(STATEFUL, nodes=(read, replace(write, stage=1)), placement=(0, 1)),
        "state cache is touched by stages 0 and 1",
    ),
    "an edge between stages": (connected, two(), "a reaches stage 1 without a transfer"),
    "a transfer from the wrong stage": (
        connected,
        replace(WHOLE, nodes=(a, replace(moved, src=1), c)),
        "a reaches stage 1 without a transfer",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_graph(what: str) -> None:
    invariant, broken, message = BROKEN[what]
    with pytest.raises(VerifyError, match=re.escape(message)):
        invariant(broken)


def test_the_culprit_is_shown_in_the_dump() -> None:
    with pytest.raises(VerifyError) as raised:
        connected(two())
    assert str(raised.value).splitlines() == [
        "a reaches stage 1 without a transfer",
        "  at the model (an unknown source line)",
        "      # encoder.act",
        "      a: float32[2, 4] = aten.relu(x)  # flops=0 bytes=0",
        "      # the model",
        "    > b: float32[2, 4] = aten.relu(a)  # stage=1 flops=0 bytes=0",
    ]


@pytest.mark.parametrize("invariant", [well_formed, costed, staged, stateful, connected])
def test_a_whole_graph_passes(invariant: Invariant) -> None:
    invariant(WHOLE)


def test_a_state_in_one_stage_passes() -> None:
    stateful(STATEFUL)


def test_a_group_may_share_a_device_over_several_stages() -> None:
    tied = graph([x], [replace(a, group="tied"), replace(b, group="tied")], b.results, placement=(0, 0))
    staged(tied)


def test_a_separable_group_may_span_devices() -> None:
    staged(two(nodes=(replace(a, group="tied"), replace(b, group="tied")), separable=frozenset({"tied"})))


def test_a_cheap_value_may_flow_back_until_it_is_copied() -> None:
    staged(two(nodes=(replace(a, stage=1, cheap=True), replace(b, stage=0))))


def test_an_operand_inside_a_list_is_seen() -> None:
    stranger: Value = value("stranger")
    joined = Call(op=aten.cat.default, args=([x, stranger],), results=(value("joined", 4, 4),))
    with pytest.raises(VerifyError, match="stranger is used before it is defined"):
        well_formed(graph([x], [joined], joined.results))
