"""What a report is made of: plain data, in a page that it cannot break out of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.picture.dot import boxes_of
from codegen.report.data import measured
from codegen.report.measurement import read_trace
from codegen.report.notes import Notes, StageSource
from codegen.report.page import data_of, page, with_data
from codegen.report.parts import COLUMNS, parts
from codegen.report.timeline import Span, Work, simulate
from ir.errors import SourceError
from ir.graph import Call, Node, Transfer
from ir.location import Where
from ir.microbatching import Microbatching
from passes.compilation import changes as report_changes
from passes.compilation.changes import changes, contents
from passes.compilation.summary import node_seconds
from tests.pure.codegen.report.test_dot import plan, toy
from tests.support.models.graphs import graph, relu, value

# ---- parts


def test_each_box_opens_its_operators_once_for_modules_that_are_alike() -> None:
    planned = plan("blocks.4.up", "blocks.8")
    found = parts(planned, [StageSource(f"stage_{i}.py", "") for i in range(3)], Notes())
    boxes = boxes_of(planned)
    assert [(part["stage"], part["operators"]) for part in found] == [(box.stage, len(box.nodes)) for box in boxes]
    (blocks,) = (part for part in found if part["title"].startswith("blocks.0"))
    assert [group["paths"] for group in blocks["groups"]] == [["blocks.0", "blocks.1", "blocks.2", "blocks.3"]]
    assert "linear" in [row[COLUMNS.index("name")] for row in blocks["groups"][0]["operators"]]


def test_each_operator_has_its_line_in_the_stage_file_and_its_time() -> None:
    planned = plan("blocks.6")
    lines = [{node: 10 * stage.index + i for i, node in enumerate(stage.graph.nodes)} for stage in planned.stages]
    sources = [StageSource(f"stage_{i}.py", "", of_stage) for i, of_stage in enumerate(lines)]
    seconds = node_seconds(planned)
    found = parts(planned, sources, Notes(seconds=seconds))
    for part, box in zip(found, boxes_of(planned), strict=True):
        assert part["seconds"] == pytest.approx(sum(seconds[node] for node in box.nodes))
        here = [n for n in planned.graph.nodes if n.stage == box.stage and isinstance(n, Call)]
        first = part["groups"][0]["operators"][0]
        assert first[COLUMNS.index("line")] == 10 * box.stage + here.index(box.nodes[0])


# ---- passes


def test_what_passes_change_is_said_in_a_few_words() -> None:
    assert contents(toy()) == f"{len(toy().nodes)} operators, {len(toy().params)} parameters"
    assert changes(toy(), toy()) == "nothing to change"
    cut = plan("blocks.4", "blocks.8").graph
    assert changes(toy(), cut).startswith("8 operators added, 3 transfers added")
    assert changes(toy(), cut).endswith("4 operators cheap enough to repeat, 3 stages")
    first, *others = toy().nodes
    renamed = replace(first, results=tuple(replace(value, name="other") for value in first.results))
    assert changes(toy(), replace(toy(), nodes=(renamed, *others))) == "1 operator with a new name"
    assert changes(toy(), replace(toy(), nodes=tuple(others))) == "1 operator removed"
    along = Microbatching(next(iter(toy().hints)), (0,), (0,), "")
    assert changes(toy(), replace(toy(), microbatching=along)) == "a batch may be split along batch"
    mixed = Microbatching(reason="along `batch`, mean in head: it mixes rows")
    assert changes(toy(), replace(toy(), microbatching=mixed)) == f"no batch may be split: {mixed.reason}"


def test_an_operator_that_gives_its_name_to_another_is_the_same() -> None:
    x = value("x", 4)
    first, second = (relu(x, name, where=Where(module=name)) for name in ("a", "b"))
    before = graph([x], [first, second], [second.results[0]])
    swapped = [replace(node, results=(value(name, 4),)) for node, name in ((first, "a_0"), (second, "a"))]
    there = value("b", 4)
    sent = Transfer(value=swapped[0].results[0], src=0, stage=1, results=(there,))
    after = graph([x], [swapped[0], sent, swapped[1]], [there])
    assert changes(before, after) == "1 transfer added, 2 operators with a new name"


def test_operators_that_are_as_they_were_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = toy().nodes
    compared, look = list[Node](), report_changes._has_new_literals
    monkeypatch.setattr(report_changes, "_has_new_literals", lambda a, b: compared.append(b) or look(a, b))
    cheap = replace(first, cheap=not first.cheap)
    changes(toy(), replace(toy(), nodes=(cheap, *others)))
    assert compared == [cheap]
    monkeypatch.setattr(report_changes, "_kind", None)
    assert changes(toy(), replace(toy(), separable=frozenset("a"))) == "1 group of which copies may be made"


# ---- the page


SCRIPTS = page("", {}).count("</script")


@settings(max_examples=30, deadline=None)
@given(st.text())
def test_no_text_breaks_out_of_the_data(text: str) -> None:
    made = page(text, {"any": text})
    assert data_of(made) == {"any": text}
    assert data_of(with_data(made, {"other": text + "</script>"})) == {"other": text + "</script>"}
    assert made.count("</script") == SCRIPTS


def test_other_data_change_nothing_else() -> None:
    assert with_data(page("a", {"x": 1}), {"x": 2}) == page("a", {"x": 2})


def test_a_page_without_data_is_no_report() -> None:
    with pytest.raises(ValueError, match="no data"):
        data_of("<html></html>")


# ---- a measured run


def trace(path: Path, *spans: Span) -> Path:
    """A file as the runtime writes it, which starts its clock at any time."""
    events = [
        {
            "ph": "X",
            "cat": {"compute": "compute", "receive": "transfer"}[s.kind],
            "ts": 5e6 + s.start * 1e6,
            "dur": (s.end - s.start) * 1e6,
            "args": {"stage": s.stage, "microbatch": s.microbatch},
        }
        for s in spans
    ]
    idle = {"ph": "X", "cat": "idle", "ts": 0, "dur": 9e9, "args": {"stage": 0}}
    path.write_text(json.dumps({"traceEvents": [{"ph": "M", "name": "thread_name"}, *events, idle]}))
    return path


def test_a_trace_is_read_from_its_first_event_in_the_order_of_time(tmp_path: Path) -> None:
    spans = (Span(1, 0, "receive", 2, 2.5), Span(0, 0, "compute", 1, 2))
    found = read_trace(trace(tmp_path / "trace.json", *spans))
    assert found == (Span(0, 0, "compute", 0, 1), Span(1, 0, "receive", 1, 1.5))


def test_a_file_that_is_no_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SourceError, match=r"other\.json is no trace"):
        read_trace(tmp_path / "other.json")


def test_as_many_microbatches_are_predicted_as_were_measured() -> None:
    work = [Work(0, 0, 1, 0, ()), Work(1, 0, 2, 0, (0,))]
    data = {"work": [vars(w) for w in work]}
    run = simulate(work, 5, 5)
    both = measured(data, run)
    assert both["measured"] == both["predicted"] == [list(span) for span in run]
    assert both["measured_seconds"] == [1, 2]
    long = measured(data, simulate(work, 50, 5))
    assert len(long["measured"]) == len(long["predicted"]) == 2 * 10


def test_a_run_of_other_stages_is_refused() -> None:
    work = [Work(0, 0, 1, 0, ())]
    with pytest.raises(ValueError, match="the run has 2 stages, and the plan 1"):
        measured({"work": [vars(w) for w in work]}, [Span(i, 0, "compute", 0, 1) for i in range(2)])
