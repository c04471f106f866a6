"""Smaller modules with the same fault: statement after statement is dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.fuzz.draft import Statement
from tests.fuzz.generator import Program


def minimise(program: Program, faulty: Callable[[Program], bool]) -> Program:
    """The smallest that is found of those for which `faulty` holds, as it does for `program`."""
    for smaller in candidates(program):
        if faulty(smaller):
            return minimise(smaller, faulty)
    return program


def candidates(program: Program) -> Iterator[Program]:
    """With one result; without some statements, the last ones first; with fixed sizes, with two stages."""
    for name in dict.fromkeys(re.findall(r"\b[a-z]\w*\b(?!\")", program.returns)):
        if program.returns != name:
            yield replace(program, returns=name)
    for size in (4, 2, 1):
        for start in range(len(program.statements) - size, -1, -1):
            yield without(program, start, size)
    for index in range(len(program.statements)):
        yield from bypassed(program, index)
    if program.dynamic:
        yield replace(program, dynamic=program.dynamic[1:])
    if program.stages > 2:
        yield replace(program, stages=2)
    for name in program.inputs[1:]:
        yield replace(program, inputs=tuple(n for n in program.inputs if n != name))


def without(program: Program, start: int, count: int) -> Program:
    kept = program.statements[:start] + program.statements[start + count :]
    return replace(program, statements=kept)


def bypassed(program: Program, index: int) -> Iterator[Program]:
    """Without a statement whose value is another name in all that follows."""
    gone = program.statements[index]
    if len(gone.made) != 1:
        return
    for name in dict.fromkeys(re.findall(r"\b(?:v\d+[a-c]?|" + "|".join(program.inputs) + r")\b", gone.code)):
        if name not in gone.made:
            kept = [
                *program.statements[:index],
                *(renamed(s, gone.made[0], name) for s in program.statements[index + 1 :]),
            ]
            returns = re.sub(rf"\b{gone.made[0]}\b(?!\")", name, program.returns)
            yield replace(program, statements=kept, returns=returns)


def renamed(statement: Statement, old: str, new: str) -> Statement:
    return replace(statement, code=re.sub(rf"\b{old}\b", new, statement.code))
