"""The writer of traces, on runs made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runtime.trace import perfetto
from runtime.trace.traces import Run, in_order


def run(stage: int, batch: int, arrived: float, started: float, ended: float) -> Run:
    return Run(stage, batch, arrived, started, ended, {stage - 1 if stage else None: 8 + stage}, 9 + stage)


TWO_STAGES = (
    run(0, 0, 0.0, 1.0, 3.0),
    run(0, 1, 3.5, 3.5, 5.0),
    run(1, 0, 3.0, 3.25, 4.0),
    run(1, 1, 5.0, 5.5, 7.0),
)


def complete(category: str, runs: tuple[Run, ...] = TWO_STAGES) -> list[dict[str, Any]]:
    return [event for event in perfetto.events(runs, stages=2) if event.get("cat") == category and event["ph"] == "X"]


def spans(events: list[dict[str, Any]]) -> list[tuple[int, float, float]]:
    return [(event["tid"], event["ts"], event["ts"] + event["dur"]) for event in events]


def test_stages_are_rows_and_times_are_microseconds() -> None:
    assert spans(complete("compute")) == [(0, 1e6, 3e6), (0, 3.5e6, 5e6), (1, 3.25e6, 4e6), (1, 5.5e6, 7e6)]
    assert complete("compute")[2]["args"] == {"stage": 1, "microbatch": 0, "bytes": 10}


def test_transfers_have_rows_of_their_own_and_name_their_sources() -> None:
    assert spans(complete("transfer")) == [(2, 0, 1e6), (2, 3.5e6, 3.5e6), (3, 3e6, 3.25e6), (3, 5e6, 5.5e6)]
    assert [event["args"]["sources"] for event in complete("transfer")][::2] == [{"the caller": 8}, {"stage 0": 9}]


def test_a_stage_is_idle_while_it_neither_receives_nor_runs() -> None:
    """From the first run of any stage to the last."""
    assert spans(complete("idle")) == [(0, 3e6, 3.5e6), (0, 5e6, 7e6), (1, 0, 3e6), (1, 4e6, 5e6)]


def test_arrows_lead_from_stage_to_stage() -> None:
    arrows = [event for event in perfetto.events(TWO_STAGES, stages=2) if event["ph"] in "sf"]
    ends = [(event["ph"], event["tid"], event["ts"]) for event in arrows]
    assert ends == [("s", 0, 1e6), ("f", 3, 3e6), ("s", 0, 3.5e6), ("f", 3, 5e6)]
    assert [event["id"] for event in arrows] == [1, 1, 5, 5]


def test_a_batch_that_failed_upstream_has_no_arrow() -> None:
    kinds = [event["ph"] for event in perfetto.events(TWO_STAGES[2:], stages=2)]
    assert set(kinds) == {"X"}


def test_a_file_has_a_name_for_each_row(tmp_path: Path) -> None:
    trace: Any = SimpleNamespace(model="m", runs=(), stages=[SimpleNamespace(stage=0, device="cuda:0")])
    perfetto.write(tmp_path / "trace.json", trace)
    page = json.loads((tmp_path / "trace.json").read_text())
    named = {e["tid"]: e["args"]["name"] for e in page["traceEvents"] if e["name"] == "thread_name"}
    assert named == {0: "stage 0 (cuda:0)", 1: "stage 0 (cuda:0) receives"}
    assert {e["ph"] for e in page["traceEvents"]} == {"M"}


def test_waiting_for_a_source_is_no_transfer() -> None:
    """A device may take up a transfer before its source is done; the time of that wait is idle."""
    runs = (run(0, 0, 10.0, 10.0, 13.0), run(1, 0, 11.0, 13.5, 14.0), run(1, 1, 14.0, 14.0, 15.0))
    assert in_order(runs) == (run(0, 0, 0.0, 0.0, 3.0), run(1, 0, 3.0, 3.5, 4.0), run(1, 1, 4.0, 4.0, 5.0))


def test_clocks_that_disagree_leave_no_time_before_its_cause() -> None:
    runs = (run(0, 0, 1.0, 1.0, 3.0), run(1, 0, 2.0, 2.5, 2.75), run(1, 1, 2.875, 2.875, 2.9375))
    assert in_order(runs) == (run(0, 0, 0.0, 0.0, 2.0), run(1, 0, 2.0, 2.0, 2.0), run(1, 1, 2.0, 2.0, 2.0))


def test_runs_of_several_programs_are_named_after_theirs() -> None:
    named = replace(TWO_STAGES[0], program="wide")
    assert [event["name"] for event in complete("compute", (named,))] == ["microbatch 0 of wide"]
    assert complete("compute", (named,))[0]["args"]["program"] == "wide"
    assert "program" not in complete("compute")[0]["args"]
