"""Loops for repeats in a row of statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from codegen.structure.program import (
    Carried,
    Collected,
    Each,
    Launch,
    Loop,
    Simple,
    Statement,
    Steps,
    Update,
    Use,
    inside,
    join,
    operands,
    reading,
    results,
)
from ir.graph import Call, Value

LONGEST = 48  # statements in a loop's body
MOST_EACH = 3  # values that differ from turn to turn; with more of them a loop is hard to read


def roll(
    body: Sequence[Simple],
    kept: AbstractSet[Value],
    fqns: Mapping[Value, str],
    number: Callable[[Call | Update], int],
) -> tuple[Statement, ...]:
    """The body with its repeats as loops; `kept` are the values that are read after its end.

    `number` is equal for actions that differ in their values alone.
    """
    search = _Search(tuple(body), kept, fqns, number)
    rolled: list[Statement] = []
    at = 0
    while at < len(body):
        found = search.best(at)
        if found is None:
            rolled.append(body[at])
            at += 1
        else:
            rolled.append(found.loop())
            at = found.end
    return tuple(rolled)


@dataclass(frozen=True)
class _Search:
    """Looks for repeats in a body."""

    body: tuple[Simple, ...]
    kept: AbstractSet[Value]
    fqns: Mapping[Value, str]
    number: Callable[[Call | Update], int]

    @cached_property
    def keys(self) -> list[int]:
        """Numbers that are equal for statements that differ in their operands alone."""
        numbers: dict[Any, int] = {}
        return [numbers.setdefault(self._key(s), len(numbers)) for s in self.body]

    def _key(self, statement: Simple) -> tuple[Any, ...]:
        if isinstance(statement, Use):
            return id(statement.block), len(statement.args), "use"
        if isinstance(statement, Launch):
            return id(statement.kernel), tuple(map(type, statement.args)), "launch"
        return self.number(statement), tuple(isinstance(v, Value) and type(v) for v in operands(statement))

    @cached_property
    def stretches(self) -> dict[int, list[int]]:
        """The number of statements that equal those one unit later, for each length of a unit and each place."""
        found: dict[int, list[int]] = {}
        for unit in range(1, min(LONGEST, len(self.body) // 2) + 1):
            runs = [0] * (len(self.body) + 1)
            for i in range(len(self.body) - unit - 1, -1, -1):
                runs[i] = runs[i + 1] + 1 if self.keys[i] == self.keys[i + unit] else 0
            found[unit] = runs
        return found

    @cached_property
    def last_read(self) -> dict[Value, int]:
        end = len(self.body)
        return {v: i for i, s in enumerate(self.body) for v in operands(s)} | dict.fromkeys(self.kept, end)

    @cached_property
    def reads(self) -> dict[Value, list[int]]:
        reads: dict[Value, list[int]] = {}
        for i, s in enumerate(self.body):
            for value in operands(s):
                reads.setdefault(value, []).append(i)
        for value in self.kept:
            reads.setdefault(value, []).append(len(self.body))
        return reads

    def best(self, at: int) -> _Repeat | None:
        """The repeat from a place that saves most lines."""
        found = (r for unit, runs in self.stretches.items() if runs[at] >= unit and (r := self._repeat(at, unit)))
        best = max(found, key=lambda r: r.saved, default=None)
        return best if best is not None and best.saved > 0 else None

    def _repeat(self, at: int, unit: int) -> _Repeat | None:
        turns = self.stretches[unit][at] // unit + 1
        while turns >= 2:
            repeat = _Repeat(self, at, unit, turns)
            fitting = repeat.fitting
            if fitting == turns:
                return repeat
            turns = fitting
        return None


@dataclass(frozen=True)
class _Slot:
    """An operand over the turns: `source` is the place in the turn that makes it, if one does."""

    values: tuple[Value, ...]
    source: tuple[int, int] | None = None
    carried: bool = False


@dataclass(frozen=True)
class _Repeat:
    """`turns` times `unit` statements, from a place in the body on."""

    search: _Search
    at: int
    unit: int
    turns: int

    @property
    def end(self) -> int:
        return self.at + self.unit * self.turns

    def turn(self, t: int) -> tuple[Simple, ...]:
        return self.search.body[self.at + t * self.unit : self.at + (t + 1) * self.unit]

    @cached_property
    def made(self) -> dict[Value, tuple[int, tuple[int, int]]]:
        """The turn that makes a value, and the place in it."""
        return {
            v: (t, (j, r))
            for t in range(self.turns)
            for j, s in enumerate(self.turn(t))
            for r, v in enumerate(results(s))
        }

    @cached_property
    def slots(self) -> list[list[_Slot]]:
        """The operands of each statement of a turn."""
        return [
            [self._slot(values) for values in zip(*(operands(self.turn(t)[j]) for t in range(self.turns)), strict=True)]
            for j in range(self.unit)
        ]

    def _slot(self, values: tuple[Value, ...]) -> _Slot:
        if values[1] not in self.made:
            return _Slot(values)
        turn, source = self.made[values[1]]
        return _Slot(values, source, carried=turn == 0)

    @cached_property
    def fitting(self) -> int:
        """The number of turns, from the first on, that are wired alike and can stand in one loop."""
        wired = (self._turns_of(s) for slots in self.slots for s in slots)
        most = min([self.turns, *wired, *map(len, self._paths.values())])
        if most < self.turns:
            return most
        for source, values in self._read_after.items():
            turns = sorted(values)
            carried = any(s.source == source and s.carried for slots in self.slots for s in slots)
            if not (turns == [most - 1] and carried) and turns != list(range(most)):
                return turns[0] + 1 if carried and turns[0] + 1 < most else min(turns[0], most - 1)
        return most

    def _turns_of(self, slot: _Slot) -> int:
        """The turns for which a slot keeps to what its second value says."""
        if slot.source is None:
            return next((t for t, v in enumerate(slot.values) if v in self.made), self.turns)
        back = 1 if slot.carried else 0
        right = (None if t < back else (t - back, slot.source) for t in range(self.turns))
        found = map(self.made.get, slot.values)
        return next((t for t, (a, b) in enumerate(zip(right, found, strict=True)) if a != b), self.turns)

    @cached_property
    def _paths(self) -> dict[tuple[str, ...], list[tuple[str, int] | None]]:
        """The container and number in the dotted names that a place has over the turns; None where the name stays."""
        found: dict[tuple[str, ...], list[tuple[str, int] | None]] = {}
        for j in range(self.unit):
            turns = [self.turn(t)[j] for t in range(self.turns)]
            modules = zip(*map(self._modules, turns), strict=True)
            stored = (row for row in zip(*map(self._stored, turns), strict=True) if _steps(row) != [None])
            found |= {names: _steps(names) for names in (*modules, *stored)}
        return found

    def _modules(self, statement: Simple) -> list[str]:
        match statement:
            case Use():
                return [statement.path]
            case Update():
                return [self.search.fqns[statement.state]]
        return []

    def _stored(self, statement: Simple) -> list[str]:
        return [self.search.fqns.get(v, "") for v in operands(statement)]

    @cached_property
    def _read_after(self) -> dict[tuple[int, int], set[int]]:
        """The turns of whose results something is read after the loop, by their place in a turn."""
        found: dict[tuple[int, int], set[int]] = {}
        for value, (t, source) in self.made.items():
            if self.search.last_read.get(value, -1) >= self.end:
                found.setdefault(source, set()).add(t)
        return found

    @cached_property
    def steps(self) -> tuple[Steps, ...]:
        rows = dict.fromkeys(tuple(row) for row in self._paths.values() if row[0] is not None)
        return tuple(Steps(row[0][0], tuple(number for _, number in row)) for row in rows if row[0])  # type: ignore[misc]

    @cached_property
    def _stepping(self) -> set[tuple[str, ...]]:
        return {names for names, row in self._paths.items() if row[0] is not None}

    @cached_property
    def each(self) -> dict[tuple[Value, ...], Each]:
        """Values from outside that differ from turn to turn, but for tensors of the loop's modules."""
        rows = dict.fromkeys(s.values for slots in self.slots for s in slots if s.source is None)
        numbers = count()
        return {
            values: Each(Value(f"{values[0].name}_each_{next(numbers)}", values[0].type), values)
            for values in rows
            if len(set(values)) > 1 and tuple(self.search.fqns.get(v, "") for v in values) not in self._stepping
        }

    @property
    def saved(self) -> int:
        """The lines that a loop saves; 0 where it would be hard to read."""
        uses = any(isinstance(s, Use) for s in self.turn(0))
        least = 2 if (uses or self.steps) and not self.each else 3
        carried = any(s.carried for slots in self.slots for s in slots)
        if self.turns < least or len(self.each) > MOST_EACH or len(self.steps) > 2 or not self._clear:
            return 0
        if not carried and not self.steps:
            return 0
        lists = sum(len(turns) > 1 for turns in self._read_after.values())
        overhead = 1 + len(self.each) + 2 * lists + max(0, len(self.steps) - 1)
        return self.unit * (self.turns - 1) - overhead

    @property
    def _clear(self) -> bool:
        """Whether names that are the same at every turn lie outside of the modules that the loop goes over."""
        fixed = {names[0] for names, row in self._paths.items() if row[0] is None}
        return (
            self._whole_turns
            and self._one_turn_each
            and not any(f"{name}.".startswith(f"{s.first}.") for name in fixed for s in self.steps)
        )

    @property
    def _one_turn_each(self) -> bool:
        """Whether each module has one turn: no end of a layer with the beginning of the next."""
        modules = [join(s.container, str(number)) for s in self.steps for number in s.numbers]
        return len(set(modules)) == len(modules)

    @property
    def _whole_turns(self) -> bool:
        """Whether no turn has a piece of another turn's module."""
        for t in range(self.turns):
            here = [f"{join(s.container, str(s.numbers[t]))}." for s in self.steps]
            for path in filter(None, map(_module, self.turn(t))):
                stepping = any(inside(s.container, path) for s in self.steps)
                if stepping and not any(f"{path}.".startswith(module) for module in here):
                    return False
        return True

    def loop(self) -> Loop:
        carried: dict[tuple[Value, tuple[int, int]], Carried] = {}
        body: list[Simple] = []
        for statement, slots in zip(self.turn(0), self.slots, strict=True):
            body.append(reading(statement, [self._inside(s, carried) for s in slots]))
        collected = tuple(
            Collected(self._value(0, source), tuple(self._value(t, source) for t in sorted(turns)))
            for source, turns in self._read_after.items()
            if len(turns) > 1 or not any(source == key[1] for key in carried)
        )
        turns = tuple(self.turn(t) for t in range(self.turns))
        return Loop(tuple(body), turns, self.steps, tuple(carried.values()), tuple(self.each.values()), collected)

    def _inside(self, slot: _Slot, carried: dict[tuple[Value, tuple[int, int]], Carried]) -> Value:
        """The value that a statement of the body reads."""
        if not slot.carried or slot.source is None:
            return self.each[slot.values].inside if slot.values in self.each else slot.values[0]
        key = (slot.values[0], slot.source)
        if key not in carried:
            before, after = slot.values[0], self._value(0, slot.source)
            last = self._value(self.turns - 1, slot.source)
            ends = self._read_after.get(slot.source) == {self.turns - 1}
            inside = Value(f"{before.name}_carried_{len(carried)}", before.type)
            carried[key] = Carried(before, inside, after, last if ends else None)
        return carried[key].inside

    def _value(self, turn: int, source: tuple[int, int]) -> Value:
        return results(self.turn(turn)[source[0]])[source[1]]


def _module(statement: Simple) -> str:
    match statement:
        case Use():
            return statement.path
        case Call():
            return statement.where.module
        case Launch():
            return statement.calls[-1].where.module
    return ""


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def _steps(names: tuple[str, ...]) -> list[tuple[str, int] | None]:
    """The container and number in each of several names that differ in one number, for as many as do."""
    first = names[0]
    if names[1] == first:
        same = next((i for i, name in enumerate(names) if name != first), len(names))
        return [None] * same
    for match in _NUMBER.finditer(first):
        head, tail = first[: match.start()], first[match.end() :]
        pattern = re.compile(re.escape(head) + r"(\d+)" + re.escape(tail))
        numbers = [m and int(m[1]) for m in map(pattern.fullmatch, names)]
        if numbers[1] is not None:
            fit = next((i for i, n in enumerate(numbers) if n is None), len(names))
            return [(head.rstrip("."), int(str(n))) for n in numbers[:fit]]
    return [None]
