"""The time limit of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic


@dataclass(frozen=True)
class Deadline:
    """`limit` seconds from `begun`."""

    limit: float
    begun: float = field(default_factory=monotonic)

    def left(self) -> float:
        """Seconds that are left; negative once they are over."""
        return self.limit - (monotonic() - self.begun)

    def passed(self) -> bool:
        return self.left() <= 0
