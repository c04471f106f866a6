"""Peak memory of a stage's activations.

A stage runs its nodes in program order (by index). A value that it receives is held from its start to the last
reader in the stage; a value that it makes, from the producer to the last reader, or to the end of the stage if a
node of another stage reads it or none does (an output of the program). With several programs, that is the end or the
start of its own. A value that every stage makes anew is
held from its first reader there to its last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from passes.partitioners.problem.model import Problem


def peaks(problem: Problem, stage_of: Sequence[int]) -> Mapping[int, float]:
    """The peak bytes of values that each stage holds, for one microbatch; `stage_of[node]`."""
    change: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for value in problem.values:
        if value.held <= 0:
            continue
        begin, end = problem.run_of(value.producer)
        last = {stage_of[node]: node for node in sorted(value.consumers)}
        home = stage_of[value.producer]
        leaves = not last or any(stage != home for stage in last)
        for stage, until in {home: value.producer, **last}.items():
            start = value.producer if stage == home else begin
            change[stage][start] += value.held
            change[stage][end if stage == home and leaves else until + 1] -= value.held
    for value in problem.remade:
        last = {stage_of[node]: node for node in sorted(value.readers)}
        first = {stage_of[node]: node for node in sorted(value.readers, reverse=True)}
        for stage, until in last.items():
            change[stage][first[stage]] += value.bytes
            change[stage][until + 1] -= value.bytes
    return {stage: _highest(deltas) for stage, deltas in change.items()}


def _highest(deltas: Mapping[int, float]) -> float:
    level = highest = 0.0
    for position in sorted(deltas):
        level += deltas[position]
        highest = max(highest, level)
    return highest
