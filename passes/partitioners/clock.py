"""How much of the time limit is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic


@dataclass(frozen=True)
class Clock:
    limit: float
    begun: float = field(default_factory=monotonic)

    def left(self) -> float:
        return self.limit - (monotonic() - self.begun)

    def out(self) -> bool:
        return self.left() <= 0
