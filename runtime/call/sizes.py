"""The sizes of a batch: the value of every symbol, read from the arguments and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.call.expressions import SizeExpression
from runtime.errors import InputError
from runtime.manifest.manifest import ProgramEntry, Symbol


@dataclass(frozen=True)
class ObservedSize:
    """The size of one dimension of an argument, or of an argument that is an integer."""

    argument: str
    dimension: int | None  # None: the argument is an integer
    expression: SizeExpression  # that it must equal
    size: int

    def __str__(self) -> str:
        return f"`{self.argument}`" if self.dimension is None else f"dimension {self.dimension} of `{self.argument}`"


@dataclass(frozen=True)
class SizeConstraints:
    """The sizes that the model was captured for: the range of each symbol, and guards on them."""

    symbols: Mapping[str, Symbol]
    guards: tuple[SizeExpression, ...]

    @classmethod
    def parse(cls, program: ProgramEntry) -> SizeConstraints:
        return cls(program.symbols, tuple(SizeExpression.parse(text, program.symbols) for text in program.guards))

    def read(self, seen: Sequence[ObservedSize]) -> dict[str, int]:
        """The value of every symbol.  Raises InputError if sizes contradict each other, a range or a guard."""
        sizes = self._stand_alone(seen)
        for one in seen:
            if (expected := one.expression(sizes)) != one.size:
                known = spelled_sizes(one.expression, sizes)
                raise InputError(f"{one} is {one.size}; expected {one.expression.text} = {expected}, as {known}")
        self._check_guards(sizes)
        return sizes

    def check(self, sizes: Mapping[str, int], place: str) -> None:
        """Raises InputError if sizes are out of range or violate a guard.  `place`: where they are, for the message."""
        for name, symbol in self.symbols.items():
            _check_range(name, symbol, sizes[name], place)
        self._check_guards(sizes)

    def _check_guards(self, sizes: Mapping[str, int]) -> None:
        for guard in self.guards:
            if not guard(sizes):
                raise InputError(f"{spelled_sizes(guard, sizes)}; the model was captured for sizes with {guard.text}")

    def _stand_alone(self, seen: Sequence[ObservedSize]) -> dict[str, int]:
        """The value of each symbol from a dimension that is the symbol alone: `batch`, not `2*batch`."""
        found: dict[str, ObservedSize] = {}
        for one in seen:
            name = one.expression.text
            if name in self.symbols and (first := found.setdefault(name, one)).size != one.size:
                raise InputError(f"`{name}` is {first.size} in `{first.argument}` and {one.size} in `{one.argument}`")
        for name, symbol in self.symbols.items():
            if name not in found:
                raise InputError(f"no tensor given shows the size `{name}`")
            _check_range(name, symbol, found[name].size, f"`{found[name].argument}`")
        return {name: one.size for name, one in found.items()}


def _check_range(name: str, symbol: Symbol, size: int, place: str) -> None:
    if size < symbol.min:
        raise InputError(f"`{name}` is {size} in {place}; expected at least {symbol.min}")
    if symbol.max is not None and size > symbol.max:
        raise InputError(f"`{name}` is {size} in {place}; expected at most {symbol.max}")


def spelled_sizes(expression: SizeExpression, sizes: Mapping[str, int]) -> str:
    """The sizes that an expression reads, in words."""
    return " and ".join(f"{name} is {sizes[name]}" for name in expression.symbols)
