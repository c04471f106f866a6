"""Spans of OpenTelemetry for requests, where its API is installed; nothing where it is not.

The exporter, the sampler and where spans go are the usual variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, …) of
`opentelemetry-instrument`, or of whatever sets up the SDK in this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import propagate, trace  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError:
    trace = propagate = None


class RequestSpan:
    """The span of a request that is answered now."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def answered(self, route: str, status: int) -> None:
        """Name it, and say how it ended."""
        if self._span is not None:
            self._span.update_name(route)
            self._span.set_attributes({"http.route": route, "http.response.status_code": status})


@contextmanager
def request_span(method: str, path: str, headers: Mapping[bytes, bytes]) -> Iterator[RequestSpan]:
    """The span of a request, below that of its client if `headers` name one."""
    if trace is None or propagate is None:
        yield RequestSpan()
        return
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    with trace.get_tracer("stagecut").start_as_current_span(
        path,
        context=propagate.extract(carrier),
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": method, "url.path": path},
    ) as span:
        yield RequestSpan(span)


def work_spans(waited: float, ran: float) -> None:
    """Two spans below the present one, which end now: `queue`, of `waited` seconds, and `engine`, of `ran` seconds."""
    if trace is None:
        return
    tracer, now = trace.get_tracer("stagecut"), time.time_ns()
    begun = now - int(ran * 1e9)
    tracer.start_span("queue", start_time=begun - int(waited * 1e9)).end(begun)
    tracer.start_span("engine", start_time=begun).end(now)
