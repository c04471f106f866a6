"""The requests of the last minute: how many, how long they took, and how they ended."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Any

_OF_THE_MODEL = ("infer", "completions", "chat", "embeddings")  # the handlers that ask the model
_SPAN = 60.0  # seconds
_MOST = 10_000  # requests that are kept; of more, the latest


class RecentRequests:
    """The requests to the model that were answered lately, and all of them by status."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._kept: deque[tuple[float, float, int]] = deque(maxlen=_MOST)  # when, seconds, status
        self._statuses: Counter[int] = Counter()

    def note(self, handler: str, status: int, seconds: float) -> None:
        """A request is answered."""
        if handler in _OF_THE_MODEL:
            self._kept.append((self._clock(), seconds, status))
            self._statuses[status] += 1

    def summary(self) -> dict[str, Any]:
        """The requests a second and the seconds of those that got an answer, in the last minute; counts by status."""
        now = self._clock()
        while self._kept and self._kept[0][0] < now - _SPAN:
            self._kept.popleft()
        first = self._kept[0][0] if len(self._kept) == _MOST else now - _SPAN
        seconds = sorted(took for _, took, status in self._kept if status == 200)
        return {
            "up": now - self._began,
            "rate": len(self._kept) / max(min(now - first, now - self._began), 1.0),
            "median": _at(seconds, 0.5),
            "p99": _at(seconds, 0.99),
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
        }


def _at(ordered: list[float], share: float) -> float | None:
    """A quantile; None of nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None
