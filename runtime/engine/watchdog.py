"""The thread that gives up on a stage that hangs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

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
        seen: dict[Worker, tuple[int, float]] = {}  # the batch that a worker is busy with, and since when
        while not self.stop.wait(self.timeout / 10):
            now = time.monotonic()
            for worker in self.workers:
                number = worker.busy_with
                if number is None:
                    seen.pop(worker, None)
                elif seen.setdefault(worker, (number, now))[0] != number:
                    seen[worker] = number, now
                elif now - seen[worker][1] > self.timeout:
                    return self._give_up(worker)

    def _give_up(self, worker: Worker) -> None:
        hung = TimeoutError(f"it is busy with one batch for more than {self.timeout:g} s")
        cause = StageError(worker.stage.index, str(worker.stage.device), hung)
        for closable in self.closables:
            closable.close(cause)
