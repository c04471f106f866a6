"""Names for people that are also unique Python identifiers."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field

_RESERVED = frozenset({"torch", "nn", "aten", "self", "device", "math", "F"})


@dataclass
class Namer:
    """Gives each wish a name that no other has: `h.0.weight` -> h_0_weight, again -> h_0_weight_1."""

    taken: set[str] = field(default_factory=lambda: set(_RESERVED))

    def __call__(self, wish: str) -> str:
        stem = re.sub(r"\W", "_", wish) or "value"
        if stem[0].isdigit() or keyword.iskeyword(stem):
            stem = f"v_{stem}"
        name, count = stem, 0
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name
