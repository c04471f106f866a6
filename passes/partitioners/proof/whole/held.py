"""The bytes of values that a stage holds at once (see `memory`), as constraints of an integer program.

A value is alive in a stage at a node if

    the stage makes it there or earlier, and reads it there or later;
    the stage makes it there or earlier, and another stage reads it, or none does;
    the stage reads it there or later, and does not make it.

It is alive, too, at nodes of other stages in between, but then at one of the stage's own as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from passes.partitioners.problem.memory import held_in, kinds_of_batches
from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.parts import HeldBytes, Remade, Value
from passes.partitioners.proof.cp_sat import Linear
from passes.partitioners.proof.integer_program import GRAIN

if TYPE_CHECKING:
    from ortools.sat.python import cp_model


def held_terms(problem: Problem) -> int:
    """The approximate number of constraints for what all stages hold."""
    readers = sum(len(v.consumers) for v in problem.values) + sum(len(v.readers) ** 2 for v in problem.remade)
    return readers * len(_moments(problem)) * problem.n_stages


def most_held(
    program: cp_model.CpModel, problem: Problem, here: Sequence[cp_model.IntVar], scaled: Callable[[float], int]
) -> cp_model.IntVar:
    """A variable of the most scaled bytes that a stage holds at once, for all batches in flight.

    `here[node]` says whether a node is in the stage.
    """
    most = program.new_int_var(0, GRAIN + 1, "")
    for moment in _moments(problem):
        alive: list[tuple[HeldBytes, cp_model.IntVar]] = []
        for value in (*problem.values, *problem.remade):
            if least := [*_alive(problem, value, moment, here)]:
                alive.append((value.held, program.new_bool_var("")))
                for condition in least:
                    program.add(alive[-1][1] >= condition)
        for kind in range(kinds_of_batches(problem) if alive else 0):
            program.add(most >= sum(scaled(problem.in_flight * held_in(h, kind)) * there for h, there in alive))
    return most


def _moments(problem: Problem) -> list[int]:
    """The nodes at which a stage may begin to hold a value."""
    readers = (node for value in problem.remade for node in value.readers)
    return sorted({0, *problem.runs, *(value.producer for value in problem.values), *readers})


def _alive(problem: Problem, value: Value | Remade, moment: int, here: Sequence[cp_model.IntVar]) -> Iterator[Linear]:
    """Expressions of which one is 1 if a value is alive at a node, and none is more."""
    if isinstance(value, Remade):
        for first in (node for node in value.readers if node <= moment):
            yield from (here[first] + here[last] - 1 for last in value.readers if last >= moment)
        return
    made, (begin, end) = here[value.producer], problem.run_of(value.producer)
    later = [node for node in value.consumers if node >= moment]
    if begin <= moment:
        yield from (here[node] - made for node in later)
    if value.producer <= moment:
        if later or moment == value.producer or (not value.consumers and moment < end):
            yield made
        elif moment < end:
            yield from (made - here[node] for node in value.consumers)
