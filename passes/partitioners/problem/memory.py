"""Peak memory of a stage's activations.

A stage runs its nodes in program order (by index). A value that it receives is held from its start to the last
reader in the stage; a value that it makes, from the producer to the last reader, or to the end of the stage if a
node of another stage reads it or none does (an output of the program). With several programs, that is the end or the
start of its own. A value that every stage makes anew is
held from its first reader there to its last. Where batches differ in size, the peak is that of the kind that needs
most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.parts import HeldBytes


def peaks(problem: Problem, stage_of: Sequence[int]) -> Mapping[int, float]:
    """The peak bytes of values that each stage holds, for one microbatch; `stage_of[node]`."""
    each = [_peaks(problem, stage_of, kind) for kind in range(kinds_of_batches(problem))]
    return {stage: max(peaks.get(stage, 0.0) for peaks in each) for stage in set().union(*each)}


def kinds_of_batches(problem: Problem) -> int:
    """The number of kinds of batches that a problem tells apart."""
    return max((len(v.held) for v in (*problem.values, *problem.remade) if isinstance(v.held, tuple)), default=1)


def held_in(held: HeldBytes, kind: int) -> float:
    """The bytes that are held in one kind of batch."""
    return held[kind] if isinstance(held, tuple) else held


def _peaks(problem: Problem, stage_of: Sequence[int], kind: int) -> Mapping[int, float]:
    change: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for value in problem.values:
        held = held_in(value.held, kind)
        if held <= 0:
            continue
        home = stage_of[value.producer]
        last = {stage_of[node]: node for node in sorted(value.consumers)}
        if len(last) == 1 and home in last:  # no other stage has to do with it
            change[home][value.producer] += held
            change[home][last[home] + 1] -= held
            continue
        begin, end = problem.run_of(value.producer)
        leaves = not last or any(stage != home for stage in last)
        for stage, until in {home: value.producer, **last}.items():
            start = value.producer if stage == home else begin
            change[stage][start] += held
            change[stage][end if stage == home and leaves else until + 1] -= held
    for value in problem.remade:
        held = held_in(value.held, kind)
        last = {stage_of[node]: node for node in sorted(value.readers)}
        first = {stage_of[node]: node for node in sorted(value.readers, reverse=True)}
        for stage, until in last.items():
            change[stage][first[stage]] += held
            change[stage][until + 1] -= held
    return {stage: _highest(deltas) for stage, deltas in change.items()}


def _highest(deltas: Mapping[int, float]) -> float:
    level = highest = 0.0
    for position in sorted(deltas):
        level += deltas[position]
        highest = max(highest, level)
    return highest
