"""Passes over a graph of two programs: each computes what it did, and what they share stays on one device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.analysis.memory import peak_bytes, stored_bytes
from ir.analysis.programs import merged
from ir.capture import capture
from ir.graph import Graph
from ir.plan import plan_stages
from passes.compilation.summary import summarize
from passes.cut.cut_problem import as_problem
from passes.group_shared import GroupShared
from passes.options.options import Shared
from passes.pipeline import PassResult
from passes.propagate_shapes import PropagateShapes
from tests.support.models.graphs import graph, linear, param, value
from tests.support.models.planning import machine, planned, slow_machine, steps
from tests.support.seeds import made_once

CALLS = (1.0, 3.0)


class Layers(nn.Module):
    """Four layers; a batch of one row takes a branch of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu() if x.shape[0] == 1 else layer(x).tanh()
        return x


INPUTS = (torch.linspace(-1, 1, 128).reshape(8, 16), torch.linspace(-1, 1, 16)[None])


@made_once
def model() -> Layers:
    return Layers().eval()


def two_programs() -> Graph:
    many = capture(model(), (INPUTS[0],), dynamic_shapes={"x": {0: "rows"}})
    return merged([("many", {}, CALLS[0], many), ("one", {"rows": 1}, CALLS[1], capture(model(), (INPUTS[1],)))])


@made_once
def after_each_pass() -> list[PassResult]:
    return list(steps(two_programs(), slow_machine(2)))


def test_every_pass_keeps_what_each_program_computes() -> None:
    weights = dict(model().state_dict())
    for step in after_each_pass():
        for i, x in enumerate(INPUTS):
            [found] = interpret(step.graph, [x], weights, program=i).outputs
            assert torch.equal(found, model()(x)), (step.name, i)
        assert [p.name for p in step.graph.programs] == ["many", "one"], step.name


def test_readers_of_one_weight_share_a_stage_and_weights_are_held_once() -> None:
    last = after_each_pass()[-1].graph
    stages = [{node.stage for node in last.users[p]} for p in last.params]
    assert all(len(on) == 1 for on in stages)
    plan = plan_stages(last, slow_machine(2))
    assert sum(stored_bytes(s.stored) for s in plan.stages) == stored_bytes(last.params)
    held = [set(stage.stored) for stage in plan.stages]
    for i in range(2):
        alone = plan.program(i)
        assert [set(stage.stored) for stage in alone.stages] == held
        assert all(t.value in alone.graph.producer for t in alone.transfers)


def test_microbatches_are_those_of_each_program() -> None:
    many, one = after_each_pass()[-1].graph.programs
    assert (str(many.microbatching.size), one.microbatching.size) == ("rows", None)


def test_sizes_are_bound_in_the_program_that_has_them() -> None:
    bound = PropagateShapes({"rows": 4}).run(two_programs(), machine(2))
    assert [p.inputs[0].type.shape[0] for p in bound.programs] == [4, 1]
    assert (bound.hints, bound.programs[0].ranges) == ({}, {})


def test_times_are_those_of_a_call_on_average() -> None:
    costed = next(step.graph for step in after_each_pass() if step.name == "annotate-cost")
    weighted = as_problem(costed, slow_machine(2))
    equal = as_problem(replace(costed, programs=tuple(replace(p, calls=1.0) for p in costed.programs)), slow_machine(2))
    for node, a, b in zip(costed.nodes, weighted.nodes, equal.nodes, strict=True):
        assert a.time == pytest.approx([b.time[0] * CALLS[node.program] / 2])


def test_a_summary_has_the_largest_activations_and_the_average_of_seconds() -> None:
    plan = plan_stages(after_each_pass()[-1].graph, slow_machine(2))
    alone = [summarize(plan.program(i), "m") for i in range(2)]
    for i, found in enumerate(summarize(plan, "m").stages):
        many, one = (summary.stages[i] for summary in alone)
        assert found.activation_bytes == many.activation_bytes == peak_bytes(plan.program(0).stages[i].graph)
        assert found.compute_seconds == pytest.approx((many.compute_seconds + 3 * one.compute_seconds) / 4)
        assert found.weight_bytes == many.weight_bytes
        assert [edge.name for edge in found.sends] == [
            f"{name}: {edge.name}" for name, s in (("many", many), ("one", one)) for edge in s.sends
        ]


def test_a_named_cut_is_in_each_program() -> None:
    last = planned(two_programs(), slow_machine(2), cut_before=("layers.2",))
    stages = {(node.program, node.where.module): node.stage for node in last.nodes if node.where.module}
    assert stages == {(p, f"layers.{i}"): int(i >= 2) for p in range(2) for i in range(4)}


def tied(*fqns: str) -> Graph:
    """Two programs of layers with the weights of the given names."""

    def parts() -> Iterator[Graph]:
        for _ in range(2):
            weights = {fqn: param(fqn) for fqn in fqns}
            source, nodes = value("x"), []
            x = source
            for i, fqn in enumerate(fqns):
                nodes.append(linear(source, weights[fqn], f"y{i}"))
                [source] = nodes[-1].results
            yield graph([x], nodes, [source])

    return merged([(f"p{i}", {}, 1.0, part) for i, part in enumerate(parts())])


@pytest.mark.parametrize(
    ("shared", "groups"),
    [
        (Shared.auto, ["a", "b", "a.1"] * 2),
        (Shared.replicate, ["a", "b", "a.1"] * 2),
        (Shared.colocate, ["a", "b", "a"] * 2),
    ],
)
def test_a_tied_weight_binds_the_same_reader_of_each_program(shared: Shared, groups: list[str]) -> None:
    found = GroupShared(shared).run(tied("a", "b", "a"), machine(2))
    assert [node.group for node in found.nodes] == groups
    assert not found.separable
