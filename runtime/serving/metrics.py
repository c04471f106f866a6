"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

from runtime.serving.admission import Admission, Batch, rows_of
from runtime.serving.supervisor import EngineState, EngineStatus
from runtime.serving.texts import Texts

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64)

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """The counts and times of a server.  Gauges are read when they are asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "stagecut_requests", "Requests by handler and HTTP status.", ["handler", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "stagecut_request_seconds", "Seconds from a request to its answer.", ["handler"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.rows = Histogram("stagecut_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=self._registry)
        self.replays = Counter(
            "stagecut_replays", "Requests that ran again as the engine had ended.", registry=self._registry
        )

    def began(self, batch: Batch) -> None:
        """A batch begins to run."""
        self.rows.observe(rows_of(batch))
        self.replays.inc(sum(request.suspect for request in batch))

    def follow(self, admission: Admission, texts: Texts, status: EngineStatus) -> None:
        """Show the state of the queue and of the engine."""
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "stagecut_waiting": ("Requests that wait.", lambda: admission.waiting),
            "stagecut_running": ("Batches in flight.", lambda: admission.running),
            "stagecut_slots": ("Batches that may be in flight.", lambda: admission.slots),
            "stagecut_texts": ("Texts in progress.", lambda: texts.in_progress),
            "stagecut_ready": ("Whether the engine is ready.", lambda: float(status.state is EngineState.READY)),
            "stagecut_engine_restarts": ("Starts of the engine after the first.", lambda: status.restarts),
            "stagecut_engine_read_bytes": ("Bytes read while it loads.", lambda: status.read),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self._registry).set_function(read)

    def page(self) -> bytes:
        return generate_latest(self._registry)
