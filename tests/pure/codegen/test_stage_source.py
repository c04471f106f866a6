"""The sources of all stages at once."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from codegen.lines import classes, file_plan
from codegen.lines.class_plan import FunctionPlan
from codegen.lines.stage_file import stage_files
from codegen.text.formatting import formatted
from codegen.text.stage_source import emit, emit_all
from ir.capture import capture
from ir.graph import Call
from ir.plan import plan_stages
from ir.process import shared_work
from passes.insert_transfers import InsertTransfers
from passes.propagate_shapes import PropagateShapes
from runtime.manifest.lines import statements
from tests.support.checking import captured_example
from tests.support.models.planning import cut, machine


@pytest.mark.slow
def test_sources_from_several_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "MANY_NODES", 0)
    monkeypatch.setattr(shared_work, "_cores", lambda: 2)
    _, graph = captured_example("gpt2")
    cluster = machine(3)
    staged = InsertTransfers().run(cut(graph, [3 * i // len(graph.nodes) for i in range(len(graph.nodes))]), cluster)
    [files] = stage_files(plan_stages(staged, cluster), "gpt2")
    assert emit_all(files, linked=False, strided=[False] * 3) == [emit(file) for file in files]


@pytest.mark.slow
def test_forwards_are_planned_once_for_all_choices_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = captured_example("gpt2")
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "gpt2")
    monkeypatch.setattr(file_plan, "MOST_LINES", 20)
    planned = list[str]()
    lines = classes.forward_lines
    monkeypatch.setattr(
        classes, "forward_lines", lambda scope, *a, **k: planned.append(scope.path) or lines(scope, *a, **k)
    )
    found, few = emit(file), len(planned)
    planned.clear()
    monkeypatch.setattr(classes.KnownForwards, "get", lambda *_: None)
    assert emit(file).source == found.source
    assert few < len(planned)


@pytest.mark.slow
def test_classes_are_chosen_once_for_stages_that_differ_in_the_numbers_of_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers 2 to 9 of a tower read alike; the first ones have other names, and lines with 10 are longer."""
    graph = capture(Tower(12).eval(), (torch.randn(2, 8),))
    number = [int(node.where.module.split(".")[1]) for node in graph.nodes if isinstance(node, Call)]
    staged = InsertTransfers().run(cut(graph, number), machine(12))
    [files] = stage_files(plan_stages(staged, machine(12)), "tower")
    alone = [emit(file).source for file in files]
    searched, choose = list[int](), file_plan._chosen
    monkeypatch.setattr(file_plan, "_chosen", lambda file, *a: searched.append(file.stage.index) or choose(file, *a))
    assert [one.source for one in emit_all(files, linked=False, strided=[False] * 12)] == alone
    assert searched == [0, 1, 2, 10, 11]


def test_a_choice_of_classes_is_made_anew_where_it_does_not_go_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture(Tower(2).eval(), (torch.randn(2, 8),))
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "tower")
    known = file_plan.KnownChoices()
    wanted = emit(file, chosen=known).source
    [key] = known.found
    known.found[key] = replace(known.found[key], size=(1, 1))
    assert emit(file, chosen=known).source == wanted
    assert known.found[key].size != (1, 1)


class Tower(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_forward_is_planned_anew_where_a_name_that_it_asked_for_is_now_that_of_a_class() -> None:
    known, forward = classes.KnownForwards(), FunctionPlan("forward", ("x",), ())
    known.add("block", {"Block", "Mlp"}, {"x", "Mlp_2", "Mlp"}, forward)
    assert known.get("block", {"Mlp", "Norm"}) is forward
    assert known.get("block", {"Block"}) is None
    assert known.get("block", {"Mlp", "x"}) is None
    assert known.get("other", {"Block", "Mlp"}) is None


class Chosen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = self.linear(x)
        return torch.cond(given.sum() > 0, lambda given: given.cos() * given.sin(), torch.relu, (given,)).exp()


def test_the_names_in_the_functions_of_a_forward_are_among_those_that_it_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = PropagateShapes().run(capture(nn.Sequential(Chosen(), Chosen()), (torch.ones(4, 4),)), machine(1))
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "chosen")
    noted = set[str]()
    monkeypatch.setattr(classes.KnownForwards, "add", lambda self, key, reserved, asked, plan: noted.update(asked))
    assert "            product = given.cos() * given.sin()\n" in emit(file).source
    assert "product" in noted


class Mixed(nn.Module):
    """The same of several values in turn, which a stage file writes as a loop."""

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        x = torch.zeros_like(values[0])
        for value in values:
            x = x + value * 3
            x = (x - x.abs()).cos()
            x = (x * x).exp()
        return x


def test_a_loop_over_values_has_the_places_of_its_calls() -> None:
    graph = PropagateShapes().run(capture(Mixed(), [torch.ones(2)] * 5), machine(1))
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "mixed")
    [found], wanted = emit_all([file], linked=False, strided=[False]), emit(file)
    assert found.source == wanted.source
    assert "for values" in found.source
    assert {call: found.sites[call] for call in file.calls} == {call: wanted.sites[call] for call in file.calls}


STATEMENTS = """
@decorated(lambda x: x)
class A(B):
    def f(self, x=[y for y in z]):
        if (a := f"{x}") is None: return lambda: 0
        elif x: pass
        else: x += 1; y = x
        for a in b:
            with c as d: del d
        else: global e
        try: raise
        except* E: f(x)
        else: assert g
        finally: import h
        while True:
            match x:
                case [1, *_] if y: print(1)
                case _: continue
async def i():
    async for j in k: await l
"""


def test_statements_are_those_among_all_nodes() -> None:
    tree = ast.parse(STATEMENTS)
    found = [*statements(tree)]
    assert found == [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    assert len(found) == 24


def test_sources_are_laid_out_by_a_program_that_no_python_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[str]()
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: started.append(command[0]) or run(command, **how))
    assert formatted("def f( a ) :\n  return   a\n") == "def f(a):\n    return a\n"
    assert [Path(program).stem for program in started] == ["ruff"]
