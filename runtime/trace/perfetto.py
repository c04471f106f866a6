"""A trace -> the JSON that ui.perfetto.dev and chrome://tracing open.

Each stage has two rows: its runs (row `i`) and its transfers (row `stages + i`).  Their
events ("ph": "X") have the category "compute", "idle" or "transfer" and times in microseconds;
"args" holds the stage, the microbatch, the program where there are several, and the bytes sent or
received.  Prefills and steps of a decoder have colours of their own.  Arrows lead from a run to
those that receive from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from runtime.trace.traces import Run, Trace

Event = dict[str, Any]

_COLOURS = {  # of chrome://tracing, by program; ui.perfetto.dev colours by the name of an event
    **dict.fromkeys(("prefill", "start"), "thread_state_iowait"),
    **dict.fromkeys(("decode", "next"), "thread_state_running"),
}


@contextmanager
def writing(path: str | Path | None, trace: Trace) -> Iterator[None]:
    """Write a trace at the end of the block, if `path` is given.  Raises FileNotFoundError if its folder is missing."""
    if path is not None and not (folder := Path(path).absolute().parent).is_dir():
        raise FileNotFoundError(f"cannot write the trace {path}: {folder} is no folder")
    try:
        yield
    finally:
        if path is not None:
            write(Path(path), trace)


def write(path: Path, trace: Trace) -> None:
    """Write a trace that has ended.  Raises OSError."""
    stages = [f"stage {stage.stage} ({stage.device})" for stage in trace.stages]
    page = {
        "displayTimeUnit": "ms",
        "otherData": {"model": trace.model},
        "traceEvents": [*_names(trace.model, stages), *events(trace.runs, len(stages))],
    }
    path.write_text(json.dumps(page) + "\n")


def events(runs: Sequence[Run], stages: int) -> Iterator[Event]:
    """The events of `runs`, which are sorted by stage, then by batch.  `stages`: their number."""
    end = max((run.ended for run in runs), default=0.0)
    known: dict[tuple[int | None, int], Run] = {(run.stage, run.batch): run for run in runs}
    for stage, of_stage in groupby(runs, attrgetter("stage")):
        free = 0.0
        for run in of_stage:
            yield from _idle(stage, free, run.arrived)
            yield from _transfer(run, stages + stage)
            yield _slice(run, "compute", stage, run.started, run.ended, bytes=run.sent or 0)
            for source in run.received:
                if (source, run.batch) in known:
                    yield from _arrow(known[source, run.batch], run, stages)
            free = run.ended
        yield from _idle(stage, free, end)


def _names(model: str, stages: Sequence[str]) -> Iterator[Event]:
    yield {"ph": "M", "pid": 0, "name": "process_name", "args": {"name": model}}
    for i, stage in enumerate(stages):
        for row, name, place in ((len(stages) + i, f"{stage} receives", 2 * i), (i, stage, 2 * i + 1)):
            yield {"ph": "M", "pid": 0, "tid": row, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": 0, "tid": row, "name": "thread_sort_index", "args": {"sort_index": place}}


def _transfer(run: Run, row: int) -> Iterator[Event]:
    if run.received:
        sources = {_spell(source): nbytes for source, nbytes in run.received.items()}
        yield _slice(run, "transfer", row, run.arrived, run.started, bytes=sum(sources.values()), sources=sources)


def _slice(run: Run, category: str, row: int, start: float, end: float, **about: Any) -> Event:
    program = {"program": run.program} if run.program else {}
    about = {"stage": run.stage, "microbatch": run.batch, **program, **about}
    failed = " failed" if run.sent is None and category == "compute" else ""
    if run.program not in _COLOURS:
        of = f" of {run.program}" if run.program else ""
        return _event(f"microbatch {run.batch}{of}{failed}", category, row, start, end, about)
    event = _event(f"{run.program} {run.batch}{failed}", category, row, start, end, about)
    return event | {"cname": _COLOURS[run.program]}


def _idle(stage: int, start: float, end: float) -> Iterator[Event]:
    if end > start:
        yield _event("idle", "idle", stage, start, end, {"stage": stage})


def _event(name: str, category: str, row: int, start: float, end: float, about: dict[str, Any]) -> Event:
    times = {"ts": _micro(start), "dur": _micro(end - start)}
    return {"ph": "X", "name": name, "cat": category, "pid": 0, "tid": row, **times, "args": about}


def _arrow(source: Run, target: Run, stages: int) -> Iterator[Event]:
    number = (target.batch * stages + source.stage) * stages + target.stage
    about = {"name": "sent", "cat": "sent", "pid": 0, "id": number}
    yield {"ph": "s", "tid": source.stage, "ts": _micro(source.started), **about}
    yield {"ph": "f", "bp": "e", "tid": stages + target.stage, "ts": _micro(target.arrived), **about}


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _spell(source: int | None) -> str:
    return "the caller" if source is None else f"stage {source}"
