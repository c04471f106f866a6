"""Names for people that are also unique Python identifiers."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field, replace

from ir.graph import Value

_RESERVED = frozenset({"torch", "nn", "aten", "self", "device", "math", "F"})


@dataclass
class Namer:
    """Gives each wish a name that no other has: `h.0.weight` -> h_0_weight, again -> h_0_weight_1."""

    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= _RESERVED

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


def repeated(value: Value, stage: int, namer: Namer) -> Value:
    """A value of another stage, received or computed again: `x` -> `x_on1`."""
    return replace(value, name=namer(f"{value.name}_on{stage}"), stands_for=value.stands_for or value.name)
