"""The times of a measured run, from the trace that `runtime.Pipeline.trace` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codegen.report.timeline import Span, SpanKind
from ir.errors import SourceError

_KINDS: Mapping[str, SpanKind] = {"compute": "compute", "transfer": "receive"}  # by the category of an event


def read_trace(path: Path, model: str = "") -> tuple[Span, ...]:
    """The spans of a run in the order of time, from 0.

    Raises SourceError where the file is no trace, or one of another model than `model`, if both have a name.
    """
    try:
        page = json.loads(path.read_text())
        events, traced = page["traceEvents"], page.get("otherData", {}).get("model", "")
        spans = [_span(e) for e in events if e.get("ph") == "X" and e.get("cat") in _KINDS]
    except OSError as e:
        raise SourceError(f"cannot read the trace {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SourceError(f"{path} is no trace of a pipeline; Pipeline.trace writes one") from e
    if traced and model and traced != model:
        raise SourceError(f"{path} is a trace of {traced}, and the report is of {model}")
    if not spans:
        raise SourceError(f"nothing ran in the trace {path}; run batches while it records")
    zero = min(span.start for span in spans)
    moved = (span._replace(start=span.start - zero, end=span.end - zero) for span in spans)
    return tuple(sorted(moved, key=lambda span: (span.start, span.stage)))


def _span(event: dict[str, Any]) -> Span:
    """Times of a trace are microseconds."""
    about, start, length = event["args"], float(event["ts"]), float(event["dur"])
    return Span(
        int(about["stage"]), int(about["microbatch"]), _KINDS[event["cat"]], start / 1e6, (start + length) / 1e6
    )
