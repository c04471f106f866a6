"""Nodes that read one weight, or touch one state, are bound to one device."""

from __future__ import annotations

import pytest

from ir.graph import Graph
from passes.group_shared import GroupShared
from tests.support.models.graphs import add, captured, graph, linear, param, relu, state, value
from tests.support.models.planning import machine

x = value("x")


def grouped(graph: Graph, shared: str = "auto") -> Graph:
    return GroupShared(shared).run(graph, machine(2))  # type: ignore[arg-type]


def groups(graph: Graph) -> list[str]:
    return [node.group for node in graph.nodes]


def chain(*fqns: str) -> Graph:
    """Linear layers, one after the other, with the weights of the given names."""
    weights = {fqn: param(fqn) for fqn in fqns}
    nodes, source = [], x
    for i, fqn in enumerate(fqns):
        nodes.append(linear(source, weights[fqn], f"y{i}"))
        [source] = nodes[-1].results
    return graph([x], nodes, [source])


@pytest.mark.parametrize(
    ("shared", "expected", "separable"),
    [
        ("colocate", ["a", "", "a"], set()),
        ("replicate", ["", "", ""], set()),
        ("auto", ["a", "", "a"], {"a"}),
    ],
)
def test_readers_of_one_weight(shared: str, expected: list[str], separable: set[str]) -> None:
    found = grouped(chain("a", "b", "a"), shared)
    assert groups(found) == expected
    assert found.separable == separable


def test_a_weight_that_one_node_reads_binds_nothing() -> None:
    assert groups(grouped(chain("a", "b", "c"))) == ["", "", ""]


def test_groups_that_overlap_become_one() -> None:
    """The readers of a and those of b are two groups until c, which one of each reads, joins them."""
    a, b, c = map(param, "abc")
    pairs = [linear(x, a, "y0"), linear(x, b, "y1"), linear(a, c, "y2"), linear(b, c, "y3")]
    apart = relu(x, "y4")
    found = grouped(graph([x], [*pairs, apart], apart.results))
    assert groups(found) == ["a", "a", "a", "a", ""]


def test_what_touches_a_state_is_bound_whatever_the_option() -> None:
    cache = state("cache")
    read = add(x, cache, "read")
    write = relu(read.results[0], "write")
    later = relu(write.results[0], "later")
    stateful = graph([x], [read, write, later], later.results, updates=((cache, write.results[0]),))
    for shared in ("colocate", "replicate", "auto"):
        found = grouped(stateful, shared)
        assert groups(found) == ["cache", "cache", ""]
        assert not found.separable


def test_a_weight_shared_by_what_touches_a_state_is_not_separable() -> None:
    cache, weight = state("cache"), param("a")
    read = add(x, cache, "read")
    first, second = linear(read.results[0], weight, "y0"), linear(cache, weight, "y1")
    found = grouped(graph([x], [read, first, second], second.results))
    assert groups(found) == ["cache"] * 3
    assert not found.separable


def test_each_layer_of_a_model_keeps_its_own_state() -> None:
    found = grouped(captured("a cache that calls fill"))
    bound = {(node.where.module, node.group.rpartition("_")[0]) for node in found.nodes if node.group}
    assert bound == {("", "layers_0"), ("", "layers_1")}
