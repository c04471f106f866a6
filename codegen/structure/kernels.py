"""Nodes that are one kernel, as calls of a function: those of one form share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from codegen.structure.program import Kernel, Launch, Simple, Statement, Update, is_random, operands, results, walk
from ir.fused.kernel_nodes import is_kernel, read_outside
from ir.graph import Call, Value
from ir.operators.facts import aten_name

_ACTIVATIONS = ("silu", "gelu", "sigmoid", "relu")


@dataclass
class Kernels:
    """The functions of a stage's kernels, by their form.  `number` is equal for calls that differ in values alone."""

    number: Callable[[Call], int]
    known: dict[Any, Kernel] = field(default_factory=dict)

    def launched(self, body: Sequence[Simple], kept: AbstractSet[Value], path: str) -> list[Simple]:
        """The statements of a module's function with a launch for each kernel; `kept` are read after them.

        A kernel of which parts lie elsewhere, or that cannot run at once, is left as it is.
        """
        made, users = list(body), _users(body)
        for name in dict.fromkeys(s.kernel for s in body if isinstance(s, Call) and s.kernel):
            calls = [s for s in made if isinstance(s, Call) and s.kernel == name]
            outside = read_outside(calls, users, kept)
            if is_kernel(calls, outside) and (around := _around(made, calls)) is not None:
                first, (before, after), end = made.index(calls[0]), around, made.index(calls[-1]) + 1
                made[first:end] = [*before, self._launch(calls, outside, path), *after]
        return made

    def _launch(self, calls: Sequence[Call], outside: AbstractSet[Value], path: str) -> Launch:
        """The call of a function for a kernel."""
        own = {v for call in calls for v in call.results}
        args = tuple(dict.fromkeys(v for call in calls for v in call.operands if v not in own))
        made = tuple(v for call in calls for v in call.results if v in outside)
        place = {v: i for i, v in enumerate((*args, *(v for call in calls for v in call.results)))}
        key = tuple((self.number(c), *map(place.__getitem__, c.operands)) for c in calls), tuple(map(place.get, made))
        if key not in self.known:
            self.known[key] = Kernel(self._name(calls), path, args, made, tuple(calls))
        return Launch(self.known[key], args, made, tuple(calls))

    def _name(self, calls: Sequence[Call]) -> str:
        stem, taken = _noun(calls), {kernel.name for kernel in self.known.values()}
        numbered = (f"{stem}_{n}" for n in count(2))
        return stem if stem not in taken else next(name for name in numbered if name not in taken)


def kernels_in(bodies: Sequence[Sequence[Statement]]) -> list[Kernel]:
    """The functions of kernels that statements launch, each once."""
    return list(dict.fromkeys(s.kernel for body in bodies for s in walk(body) if isinstance(s, Launch)))


def _users(body: Sequence[Simple]) -> dict[Value, list[Simple]]:
    users: dict[Value, list[Simple]] = {}
    for statement in body:
        for value in operands(statement):
            users.setdefault(value, []).append(statement)
    return users


def _around(body: Sequence[Simple], calls: Sequence[Call]) -> tuple[list[Simple], list[Simple]] | None:
    """The statements among the calls of a kernel that can run before it, and those that must run after it.

    None where that would move one that changes tensors or draws numbers, or where it must run in between.
    """
    inside, made = set(calls), {v for call in calls for v in call.results}
    before, after, late = list[Simple](), list[Simple](), set[Value]()
    for statement in body[body.index(calls[0]) : body.index(calls[-1]) + 1]:
        read = operands(statement)
        if isinstance(statement, Call) and statement in inside:
            if not late.isdisjoint(read):
                return None
            continue
        if not _is_pure(statement):
            return None
        waits = not made.isdisjoint(read) or not late.isdisjoint(read)
        late.update(results(statement) if waits else ())
        (after if waits else before).append(statement)
    return before, after


def _is_pure(statement: Simple) -> bool:
    """Whether a statement neither changes tensors nor draws random numbers."""
    match statement:
        case Update():
            return False
        case Call():
            return not statement.op._schema.is_mutable and not is_random(statement)
    return all(not call.op._schema.is_mutable and not is_random(call) for call in statement.calls)


def _noun(calls: Sequence[Call]) -> str:
    """A name for what operators make of their operands."""
    names = [aten_name(call.op) for call in calls]
    if "mean" in names and "rsqrt" in names:
        return "normalized"
    if "cat" in names and "neg" in names:
        return "rotated"
    if "mul" in names and any(name in names for name in _ACTIVATIONS):
        return "gated"
    named = [name for name in names if name not in ("to", "slice", "cat")]
    if not 1 < len(named) < 4:  # of a few, what they do says it best
        return "combined"
    return "_".join(named)
