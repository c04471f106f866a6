"""The thread that gives up on a stage that hangs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from runtime.awake_clock import AwakeClock
from runtime.engine.channel import Closable
from runtime.engine.worker import Worker
from runtime.errors import StageError


@dataclass(frozen=True)
class Watchdog:
    """Closes all `closables` once a worker has been busy with one batch for `timeout` seconds."""

    workers: Sequence[Worker]
    closables: Sequence[Closable]
    timeout: float
    stop: Event  # set when the engine is closed

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout}; a stage needs some time for a batch")

    def run(self) -> None:
        """Until a stage hangs, which is noticed at most a fifth of the time-out late, or until `stop` is set."""
        seen: dict[Worker, tuple[int | None, float]] = {}  # the batch that a worker is busy with, and for how long
        tick = self.timeout / 10
        clock = AwakeClock(tick)
        while not self.stop.wait(tick):
            passed = clock.passed()
            for worker in self.workers:
                number, (before, seconds) = worker.busy_with, seen.get(worker, (None, 0.0))
                seen[worker] = number, seconds + passed if number is not None and number == before else 0.0
                if seen[worker][1] > self.timeout:
                    return self._give_up(worker)

    def _give_up(self, worker: Worker) -> None:
        hung = TimeoutError(f"it is busy with one batch for more than {self.timeout:g} s")
        cause = StageError(worker.stage.index, str(worker.stage.device), hung)
        for closable in self.closables:
            closable.close(cause)
