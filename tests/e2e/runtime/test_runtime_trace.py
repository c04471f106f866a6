"""Traces of pipelines that run: what they record, and what of it stands in the file."""

from __future__ import annotations

import gc
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime import Pipeline, StageError
from runtime.run import main
from tests.support.artifacts.by_hand import Part, chain, signals, write

X = torch.ones(2, 4)
SLEEP = "time.sleep(0.01)\n"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Three stages, the last of which receives from both others; batches of 3.0 fail in the second."""
    return write(
        tmp_path,
        [
            Part(SLEEP + "return x + 1, x * 10", {"x": None}, {"a": ((1,), ()), "b": ((2,), ())}),
            Part(SLEEP + "if a[0, 0] == 4: raise KeyError\nreturn (a * 2,)", {"a": 0}, {"c": ((2,), ())}),
            Part(SLEEP + "return (c + b,)", {"b": 0, "c": 1}, {"y": ((), (0,))}),
        ],
    )


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def of(events: list[dict[str, Any]], category: str) -> dict[tuple[int, int], dict[str, Any]]:
    """By stage and microbatch."""
    found = [event for event in events if event.get("cat") == category]
    return {(event["args"]["stage"], event["args"]["microbatch"]): event for event in found}


def end(event: dict[str, Any]) -> float:
    return event["ts"] + event["dur"]


def test_a_stream_shows_when_each_stage_works_and_receives(slow: Path) -> None:
    with Pipeline.load(slow) as pipe, pipe.trace(slow / "trace.json"):
        list(pipe.map([X] * 6))
    events = read(slow / "trace.json")
    compute, transfer = of(events, "compute"), of(events, "transfer")
    assert set(compute) == set(transfer) == {(stage, batch) for stage in range(3) for batch in range(6)}
    for place, event in compute.items():
        assert event["dur"] >= 10_000
        assert event["ts"] == pytest.approx(end(transfer[place]))
    for stage in range(3):
        for earlier, later in pairwise(compute[stage, batch] for batch in range(6)):
            assert end(earlier) <= later["ts"]
    for target, source in ((1, 0), (2, 0), (2, 1)):
        assert all(transfer[target, batch]["ts"] >= end(compute[source, batch]) for batch in range(6))


def test_stages_that_work_at_once_overlap_in_it(tmp_path: Path) -> None:
    """Stage 0 with batch k + 1 and stage 1 with batch k meet at a barrier, so both are at work then."""
    signals.renew()
    meet = "from tests.support.artifacts.by_hand import signals\nif {value}[0, 0] {meets}: signals.meeting.wait()\n"
    parts = [
        Part(meet.format(value="x", meets="> 0") + "return (x,)", {"x": None}, {"h": ((1,), ())}),
        Part(meet.format(value="h", meets="< 5") + "return (h,)", {"h": 0}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts)) as pipe, pipe.trace(tmp_path / "trace.json"):
        list(pipe.map((X * batch for batch in range(6)), in_flight=2))
    compute = of(read(tmp_path / "trace.json"), "compute")
    for batch in range(5):
        one, other = compute[0, batch + 1], compute[1, batch]
        assert max(one["ts"], other["ts"]) < min(end(one), end(other))


def test_idle_fills_what_is_left_of_each_row(slow: Path) -> None:
    with Pipeline.load(slow) as pipe, pipe.trace(slow / "trace.json"):
        list(pipe.map([X] * 3))
    events = [event for event in read(slow / "trace.json") if event["ph"] == "X"]
    whole = max(map(end, events))
    for stage in range(3):
        mine = sorted((e["ts"], end(e)) for e in events if e["args"]["stage"] == stage)
        assert sum(stop - start for start, stop in mine) == pytest.approx(whole, rel=1e-3)
        assert all(b[0] == pytest.approx(a[1], abs=1) for a, b in pairwise(mine))


def test_bytes_and_sources(slow: Path) -> None:
    with Pipeline.load(slow) as pipe, pipe.trace() as trace:
        pipe(X)
    assert [(run.stage, dict(run.received), run.sent) for run in trace.runs] == [
        (0, {None: 32}, 64),
        (1, {0: 32}, 32),
        (2, {0: 32, 1: 32}, 32),
    ]


def test_only_the_batches_of_the_block_are_recorded(slow: Path) -> None:
    with Pipeline.load(slow) as pipe:
        before = pipe.submit(X)
        with pipe.trace() as trace:
            inside = pipe.submit(X)
        assert before.done()
        assert inside.done()
        pipe(X)
    assert [(run.stage, run.batch) for run in trace.runs] == [(0, 0), (1, 0), (2, 0)]


def test_a_batch_that_fails_keeps_its_number(slow: Path) -> None:
    with Pipeline.load(slow) as pipe, pipe.trace(slow / "trace.json"):
        futures = [pipe.submit(x) for x in (X, X * 3, X)]
        assert isinstance(futures[1].exception(), StageError)
        pipe.reset()
    compute = of(read(slow / "trace.json"), "compute")
    assert set(compute) == {(stage, batch) for stage in range(3) for batch in range(3)} - {(2, 1)}
    assert [place for place, event in compute.items() if event["name"].endswith("failed")] == [(1, 1)]


def test_one_trace_at_a_time(slow: Path) -> None:
    with Pipeline.load(slow) as pipe:
        with pipe.trace() as first, pytest.raises(RuntimeError, match="traced already"), pipe.trace():
            pytest.fail("two traces")
        with pipe.trace() as second:
            pipe(X)
    assert (len(first.runs), len(second.runs)) == (0, 3)


def test_a_trace_is_written_also_where_something_raises(slow: Path) -> None:
    def use(pipe: Pipeline) -> None:
        with pipe.trace(slow / "trace.json"):
            pipe(X)
            raise KeyError("mine")

    with Pipeline.load(slow) as pipe, pytest.raises(KeyError, match="mine"):
        use(pipe)
    assert len(of(read(slow / "trace.json"), "compute")) == 3


def test_a_trace_is_written_also_where_the_pipeline_is_closed(slow: Path) -> None:
    pipe = Pipeline.load(slow)
    with pipe.trace(slow / "trace.json"):
        pipe(X)
        pipe.close()
    assert len(of(read(slow / "trace.json"), "compute")) == 3


def test_a_folder_that_is_missing_is_said_before_anything_runs(slow: Path) -> None:
    with Pipeline.load(slow) as pipe:
        missing = pipe.trace(slow / "nowhere/trace.json")
        with pytest.raises(FileNotFoundError, match="nowhere is no folder"), missing:
            pytest.fail("ran")


def test_a_trace_keeps_no_stage_and_no_tensor(tmp_path: Path) -> None:
    signals.renew()
    seen = "import weakref\nfrom tests.support.artifacts.by_hand import signals\n"
    body = f"{seen}signals.seen += map(weakref.ref, (self, x))\n"
    parts = [Part(body + "return (x + 1,)", {"x": None}, {"y": ((), (0,))})]
    with Pipeline.load(write(tmp_path, parts)) as pipe, pipe.trace() as trace:
        pipe(X + 0)
    del pipe
    gc.collect()
    assert [ref() for ref in signals.seen] == [None, None]
    assert len(trace.runs) == 1


def test_run_writes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain(tmp_path)
    x, y, trace = (str(tmp_path / name) for name in ("x.safetensors", "y.safetensors", "trace.json"))
    save_file({"x": X}, x)
    assert main([str(tmp_path), "--input", x, "--output", y, "--trace", trace]) == 0
    assert set(of(read(Path(trace)), "compute")) == {(0, 0), (1, 0)}
    assert main([str(tmp_path), "--input", x, "--output", y, "--trace", trace, "--microbatches", "2"]) == 0
    assert set(of(read(Path(trace)), "compute")) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert torch.equal(load_file(y)["y"], (X + 1) * 2)
    assert main([str(tmp_path), "--input", x, "--output", y, "--trace", str(tmp_path / "no/trace.json")]) == 2
    assert "no is no folder" in capsys.readouterr().err
