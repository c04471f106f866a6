"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

from runtime.serving.admission import Batch, rows_of
from runtime.serving.front.recent import RecentRequests
from runtime.serving.served_model import ServedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_GAUGES = {
    "busy": "Share of a second in which the stage ran batches.",
    "waiting": "Batches that waited before the stage.",
    "memory": "Bytes of the stage's device, or of the process that runs it.",
}
_ROWS = (1, 2, 4, 8, 16, 32, 64)

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """The counts and times of a server.  Gauges are read when they are asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.recent = RecentRequests()
        self.requests = Counter(
            "stagecut_requests", "Requests by handler and HTTP status.", ["handler", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "stagecut_request_seconds", "Seconds from a request to its answer.", ["handler"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.waits = Histogram(
            "stagecut_wait_seconds",
            "Seconds that an answered request waited.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.rows = Histogram("stagecut_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=self._registry)
        self.replays = Counter(
            "stagecut_replays", "Requests that ran again as the engine had ended.", registry=self._registry
        )

    def began(self, batch: Batch) -> None:
        """A batch begins to run."""
        self.rows.observe(rows_of(batch))
        self.replays.inc(sum(request.suspect for request in batch))

    def note(self, handler: str, status: int, seconds: float) -> None:
        """A request is answered."""
        self.requests.labels(handler, status).inc()
        self.seconds.labels(handler).observe(seconds)
        self.recent.note(handler, status, seconds)

    def follow(self, model: ServedModel) -> None:
        """Show the state of the queue and of the engines."""
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "stagecut_waiting": ("Requests that wait.", lambda: model.admission.waiting),
            "stagecut_running": ("Batches in flight.", lambda: model.admission.running),
            "stagecut_slots": ("Batches that may be in flight.", lambda: model.admission.slots),
            "stagecut_texts": ("Texts in progress.", lambda: model.texts.in_progress),
            "stagecut_ready": ("Whether requests run.", lambda: float(model.is_ready)),
            "stagecut_engine_restarts": (
                "Starts of engines, or of their stages, after the first.",
                lambda: sum(max(engine.starts - 1, 0) for engine in model.engines),
            ),
            "stagecut_engine_read_bytes": (
                "Bytes read while engines load.",
                lambda: sum(engine.read for engine in model.engines),
            ),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self._registry).set_function(read)
        self._registry.register(_StageGauges(model))

    def page(self) -> bytes:
        return generate_latest(self._registry)


class _StageGauges:
    """The loads of the stages, as observed last."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def collect(self) -> Iterator[GaugeMetricFamily]:
        stages = [*self._model.stages()]
        for key, text in _STAGE_GAUGES.items():
            family = GaugeMetricFamily(f"stagecut_stage_{key}", text, labels=["engine", "stage"])
            for engine, stage, load in stages:
                family.add_metric([str(engine), str(stage)], load[key])
            yield family
