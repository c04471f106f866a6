"""A clock of silence: seconds without a sign of life, of which those in which this process did not run do not count."""

from __future__ import annotations

import time


class AwakeClock:
    """Seconds from one look to the next, for a loop that looks every `tick` seconds.

    A look that comes late counts as two ticks at most: a process that was stopped itself, or got no core, must not
    blame others for that time.
    """

    def __init__(self, tick: float) -> None:
        self._most, self._looked = 2 * tick, time.monotonic()

    def passed(self) -> float:
        """The seconds since the last look that count."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, self._most), now
        return passed
