"""Statements of a stage as data: operators, updates of state, calls of classes and of kernels, and loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ir.graph import Call, State, Value


@dataclass(frozen=True, eq=False)
class Update:
    """An assignment to a state at the end of a run."""

    state: State
    value: Value


@dataclass(frozen=True, eq=False)
class PartWrite:
    """`x[:, 1:] = value`: operators that return a tensor with other elements in a part of it."""

    base: Value  # the tensor before
    part: tuple[Call, ...]  # what takes the part of it: each of the result of the one before, the first of `base`
    value: Value | int | float | bool | complex
    results: tuple[Value]  # the tensor afterwards
    calls: tuple[Call, ...]  # what it stands for

    @property
    def operands(self) -> tuple[Value, ...]:
        """The values that it reads, the base first."""
        made = {v for call in self.part for v in call.results}
        read = dict.fromkeys(v for call in self.part for v in call.operands if v not in made)
        return (*read, *([self.value] if isinstance(self.value, Value) else []))


@dataclass(frozen=True, eq=False)
class Block:
    """A class of the stage file: the statements of its first call."""

    path: str  # of the module that is called first
    cls: str  # the class that the user gave it
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    body: tuple[Statement, ...]
    calls: tuple[Call, ...]  # those that the first call stands for
    stored: frozenset[str]  # the names in the module of what it reads and changes of its own


@dataclass(frozen=True, eq=False)
class Use:
    """A call of a block."""

    block: Block
    path: str
    args: tuple[Value, ...]
    results: tuple[Value, ...]
    calls: tuple[Call, ...]  # what it stands for, one for each of the block's


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function of the stage file that runs as one kernel: the operators of its first launch."""

    name: str
    path: str  # of the module in which that is
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, eq=False)
class Launch:
    """A call of a kernel."""

    kernel: Kernel
    args: tuple[Value, ...]
    results: tuple[Value, ...]
    calls: tuple[Call, ...]  # what it stands for, one for each of the kernel's


@dataclass(frozen=True, eq=False)
class Steps:
    """The modules that a loop goes over: `layers.20`, `layers.21`, …"""

    container: str
    numbers: tuple[int, ...]

    @property
    def first(self) -> str:
        return join(self.container, str(self.numbers[0]))


@dataclass(frozen=True, eq=False)
class Carried:
    """A value that each turn of a loop hands to the next."""

    before: Value  # what the first turn is given
    inside: Value  # its name in the loop
    after: Value  # what a turn makes of it
    final: Value | None  # what the last turn made, if that is read after the loop


@dataclass(frozen=True, eq=False)
class Each:
    """A value that differs from turn to turn and is made before the loop."""

    inside: Value
    values: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Collected:
    """A value that every turn makes and that is read after the loop."""

    inside: Value
    values: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop; its body is the first turn."""

    body: tuple[Simple, ...]
    turns: tuple[tuple[Simple, ...], ...]  # the statements that the loop stands for
    steps: tuple[Steps, ...]
    carried: tuple[Carried, ...]
    each: tuple[Each, ...]
    collected: tuple[Collected, ...]

    @property
    def results(self) -> tuple[Value, ...]:
        """The values that are read after the loop."""
        finals = dict.fromkeys(c.final for c in self.carried if c.final is not None)
        return (*finals, *(v for c in self.collected for v in c.values))


Simple: TypeAlias = Call | Update | Use | Launch
Statement: TypeAlias = Simple | PartWrite | Loop


def operands(statement: Statement) -> tuple[Value, ...]:
    """The values that a statement reads, in order; of a loop those from outside."""
    match statement:
        case Call() | PartWrite():
            return statement.operands
        case Update():
            return (statement.value,)
        case Use() | Launch():
            return statement.args
        case Loop():
            inner = {v for s in statement.body for v in results(s)}
            inner |= {c.inside for c in (*statement.carried, *statement.each)}
            free = (v for s in statement.body for v in operands(s) if v not in inner)
            given = (*(c.before for c in statement.carried), *(v for e in statement.each for v in e.values))
            return tuple(dict.fromkeys((*given, *free)))


def results(statement: Statement) -> tuple[Value, ...]:
    """The values that a statement makes."""
    return () if isinstance(statement, Update) else statement.results


def reading(statement: Simple, values: Sequence[Value]) -> Simple:
    """The same statement with other operands, given in the order of `operands`."""
    match statement:
        case Update():
            return replace(statement, value=values[0])
        case Use() | Launch():
            return replace(statement, args=tuple(values))
        case Call():
            leaves, spec = tree_flatten((statement.args, dict(statement.kwargs)))
            fresh = iter(values)
            args, kwargs = tree_unflatten([next(fresh) if isinstance(x, Value) else x for x in leaves], spec)
            return replace(statement, args=args, kwargs=kwargs)


def calls_of(statement: Statement) -> tuple[Call, ...]:
    """The nodes of the graph that a statement stands for, in their order."""
    match statement:
        case Call():
            return (statement,)
        case Update():
            return ()
        case PartWrite() | Use() | Launch():
            return statement.calls
        case Loop():
            return tuple(call for turn in statement.turns for s in turn for call in calls_of(s))


def walk(body: Sequence[Statement]) -> Iterator[Statement]:
    """All statements, with those inside loops."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from walk(statement.body)


def join(path: str, name: str) -> str:
    """A dotted name of what has a name in the module `path`."""
    return f"{path}.{name}" if path else name


def inside(path: str, name: str) -> bool:
    """Whether a dotted name is in the module `path`."""
    return not path or name.startswith(f"{path}.")


def relative(path: str, to: str) -> str:
    """`h.0.attn.weight` seen from `h.0` is `attn.weight`."""
    return path[len(to) + 1 :] if to else path


def is_random(call: Call) -> bool:
    """Whether an operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in call.op.tags
