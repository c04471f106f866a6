"""Widths of sources: an encoder's code may work for some alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn.functional import pad

from runtime.call.expressions import SizeExpression
from runtime.call.sizes import SizeConstraints
from runtime.manifest.manifest import ProgramEntry


@dataclass(frozen=True)
class SourceWidths:
    """The widths of `source`, ids padded on the right, that a program takes; any where it has no such input."""

    symbol: str = ""
    least: int = 1
    most: int = 0
    guards: tuple[SizeExpression, ...] = ()

    @classmethod
    def of(cls, program: ProgramEntry, longest: int) -> SourceWidths:
        """Those of a program whose sources have at most `longest` tokens."""
        symbol = next((str(t.shape[1]) for t in program.inputs if t.name == "source"), "")
        if symbol not in program.symbols:
            return cls()
        guards = SizeConstraints.parse(program).guards
        own = tuple(guard for guard in guards if set(guard.symbols) == {symbol})
        return cls(symbol, program.symbols[symbol].min, 2 * longest, own)

    def padded(self, given: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The inputs of a step, in which a source of a width that the program does not take is padded."""
        source = given.get("source")
        if not self.symbol or source is None:
            return given
        return {**given, "source": pad(source, (0, _width(self, source.shape[1]) - source.shape[1]))}


@cache
def _width(widths: SourceWidths, least: int) -> int:
    """The smallest width from `least` on that fits."""
    tried = range(max(least, widths.least), max(widths.most, least) + 1)
    fits = (width for width in tried if all(guard({widths.symbol: width}) for guard in widths.guards))
    return next(fits, least)
