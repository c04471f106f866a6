"""The sources of all stages at once."""

from __future__ import annotations

import pytest

from codegen.lines.stage_file import stage_files
from codegen.text.stage_source import emit, emit_all
from ir import shared_work
from ir.plan import plan_stages
from passes.insert_transfers import InsertTransfers
from tests.support.checking import captured_example
from tests.support.planning import cut, machine


def test_sources_from_several_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "MANY_NODES", 0)
    monkeypatch.setattr(shared_work, "_cores", lambda: 2)
    _, graph = captured_example("gpt2")
    cluster = machine(3)
    staged = InsertTransfers().run(cut(graph, [3 * i // len(graph.nodes) for i in range(len(graph.nodes))]), cluster)
    [files] = stage_files(plan_stages(staged, cluster), "gpt2")
    assert emit_all(files, linked=False, strided=[False] * 3) == [emit(file) for file in files]
