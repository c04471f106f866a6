"""The relaxed problem as an integer program, for graphs too wide to list their ideals.

y[v, p] is 1 if unit v is in place p of the pipeline or before it, so y[v, p] <= y[v, p + 1], and for u before v,
y[v, p] <= y[u, p]. Then x[v, p] = y[v, p] - y[v, p - 1] is 1 if v is in place p. A value is received there if a
consumer is there without the producer, and sent if the producer is there without some consumer:

    received[h, p] >= x[consumer, p] - x[producer, p],      sent[h, p] >= x[producer, p] - x[consumer, p].

Times are whole multiples of a small unit, rounded down, so that the program's bound is one of ours. A
value known to be reachable limits the places of each unit: its ancestors must fit before it, its descendants
after it. Where classes of devices differ, each place chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.proof.cp_sat import Ending, Linear, new_program, run_in_steps
from passes.partitioners.proof.ideals import WEIGHT_ROUNDING, Ideals
from passes.partitioners.proof.relaxed import Relaxed, Stages

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

GRAIN = 10**8  # the known value is this many units of time


@dataclass(frozen=True, eq=False)
class Answer:
    """A proven bound, and the best split found (no stages: none)."""

    bound: float
    stages: Stages


class IntegerProgram:
    """The program of one relaxed problem.  `known` is a value that some split has, in seconds."""

    def __init__(self, model: Relaxed, known: float) -> None:
        self.model, self.core, self.known = model, model.core, known
        self.scale = GRAIN / known
        self.places = range(sum(len(kind.devices) for kind in model.classes))
        self.first, self.last = _limits(model, known, len(self.places))

    @property
    def variables(self) -> int:
        """The number of boolean variables of the program: the places open to each unit, over all units."""
        return int((self.last - self.first).sum())

    def _write(self) -> None:
        self.program, first, last = new_program(), self.first.tolist(), self.last.tolist()
        self.by: list[list[cp_model.IntVar | int]] = [
            [0 if p < first[v] else 1 if p >= last[v] else self.program.new_bool_var("") for p in self.places]
            for v in range(self.core.n)
        ]
        self.chosen = self._choices()
        self.load = self.program.new_int_var(0, self._units(self.known), "")
        self._keep_order()
        for place in self.places:
            self._bound_load(place)

    def solve(self, hint: np.ndarray, deadline: Deadline) -> Answer:
        """The best bound and split within the time limit; `hint[unit]` is the place of each unit in a good split."""
        if (self.first > self.last).any():  # in a contracted problem the known value may be below all splits
            return Answer(self.known, ())
        self._write()
        self.program.minimize(self.load)
        for unit, row in enumerate(self.by):
            for place, variable in enumerate(row):
                if not isinstance(variable, int):
                    self.program.add_hint(variable, int(hint[unit] <= place))
        solver, ending = run_in_steps(self.program, deadline)
        if ending is Ending.impossible:
            return Answer(self.known, ())
        bound = solver.best_objective_bound / self.scale
        return Answer(bound, self._stages(solver) if ending is Ending.solved else ())

    def below(self, deadline: Deadline) -> Answer:
        """Any split below the known value, with no bound; without stages, the known value as the bound if it is one.

        To find one, or that there is none, takes less than to find the best.
        """
        if (self.first > self.last).any():
            return Answer(self.known, ())
        self._write()
        self.program.add(self.load <= GRAIN - 1)
        solver, ending = run_in_steps(self.program, deadline)
        if ending is Ending.impossible:
            return Answer(self.known, ())
        return Answer(0.0, self._stages(solver) if ending is Ending.solved else ())

    def _units(self, seconds: float) -> int:
        return floor(seconds * self.scale)

    def _at(self, unit: int, place: int) -> Linear:
        return self.by[unit][place] - self.by[unit][place - 1] if place else self.by[unit][0]

    def _choices(self) -> Sequence[Sequence[cp_model.LiteralT]]:
        """[place][class] whether a place has a device of a class."""
        classes, chain = self.model.classes, self.model.chain
        if chain:
            return [[kind == chain[place] for kind in range(len(classes))] for place in self.places]
        if len(classes) == 1:
            return [[True] for _ in self.places]
        chosen = [[self.program.new_bool_var("") for _ in classes] for _ in self.places]
        for row in chosen:
            self.program.add_exactly_one(row)
        for kind, column in zip(classes, zip(*chosen, strict=True), strict=True):
            self.program.add(sum(column) == len(kind.devices))
        return chosen

    def _keep_order(self) -> None:
        for row in self.by:
            self._never_falls(row)
        for a, b in self.core.edges.tolist():
            for early, late in zip(self.by[a], self.by[b], strict=True):
                self._at_most(late, early)

    def _never_falls(self, row: Sequence[Linear]) -> None:
        for early, late in pairwise(row):
            self._at_most(early, late)

    def _at_most(self, small: Linear, large: Linear) -> None:
        if not (isinstance(small, int) and small == 0) and not (isinstance(large, int) and large == 1):
            self.program.add(small <= large)

    def _bound_load(self, place: int) -> None:
        """Constraints: the load is at least that of the device in a place, whatever its class."""
        here = np.flatnonzero(self._may_be_in(place)).tolist()
        received, sent = self._moved(place)
        for kind, chosen in enumerate(self.chosen[place]):
            if isinstance(chosen, bool) and not chosen:
                continue
            time, cost = self.model.time[kind], self.model.cost[kind]
            compute = sum(self._units(time[unit]) * self._at(unit, place) for unit in here if time[unit] < np.inf)
            arrives = sum(self._units(cost[value]) * moved for value, moved in received)
            leaves = sum(self._units(cost[value]) * moved for value, moved in sent)
            for load in (compute, arrives, leaves) if self.model.overlap else (compute + arrives + leaves,):
                self.program.add(self.load >= load).only_enforce_if(chosen)
            for unit in here:
                if time[unit] == np.inf:
                    self.program.add(self._at(unit, place) == 0).only_enforce_if(chosen)
            if self.model.memory_matters and self.model.classes[kind].memory < np.inf:
                self._bound_memory(place, here, self.model.classes[kind].memory, chosen)

    def _bound_memory(self, place: int, here: list[int], memory: float, chosen: cp_model.LiteralT) -> None:
        scale = GRAIN / memory
        keeps = sum(floor(self.core.keeps[unit] * scale) * self._at(unit, place) for unit in here)
        weights = self.core.weights
        for number, size in enumerate(weights.sizes[:, 0]):
            stands = self.program.new_bool_var("")
            for unit in weights.members[weights.starts[number] : weights.starts[number + 1]]:
                self.program.add(stands >= self._at(int(unit), place))
            keeps += floor(size * scale) * stands
        self.program.add(keeps <= GRAIN).only_enforce_if(chosen)

    def _may_be_in(self, place: int) -> np.ndarray:
        """[units] whether each may be in a place."""
        return (self.first <= place) & (place <= np.maximum(self.first, self.last))

    @cached_property
    def _readers(self) -> list[list[int]]:
        """The units that read each value, but for its producer."""
        values = self.core.values
        members = np.split(values.members, values.starts[1:-1])
        return [part[part != producer].tolist() for part, producer in zip(members, self.core.producer, strict=True)]

    def _moved(self, place: int) -> tuple[list[tuple[int, cp_model.IntVar]], list[tuple[int, cp_model.IntVar]]]:
        """The values that are received and sent in a place, each as a pair (value, boolean)."""
        received: list[tuple[int, cp_model.IntVar]] = []
        sent: list[tuple[int, cp_model.IntVar]] = []
        values, here = self.core.values, self._may_be_in(place)
        open_here = np.zeros(len(values), dtype=bool)  # values with a member that may be here
        open_here[values.owner[here[values.members]]] = True
        for value in np.flatnonzero(open_here).tolist():
            producer, readers = int(self.core.producer[value]), self._readers[value]
            made = self._at(producer, place)
            arriving = [unit for unit in readers if here[unit]]
            if arriving:
                received.append((value, self.program.new_bool_var("")))
                for unit in arriving:
                    self.program.add(received[-1][1] >= self._at(unit, place) - made)
            if here[producer]:
                sent.append((value, self.program.new_bool_var("")))
                for unit in readers:
                    self.program.add(sent[-1][1] >= made - self._at(unit, place))
        return received, sent

    def _stages(self, solver: cp_model.CpSolver) -> Stages:
        placed = np.array([sum(1 - solver.value(variable) for variable in row) for row in self.by])
        kinds = [next(k for k, chosen in enumerate(row) if solver.boolean_value(chosen)) for row in self.chosen]
        return tuple((kinds[place], placed == place) for place in self.places)


def _limits(model: Relaxed, known: float, places: int) -> tuple[np.ndarray, np.ndarray]:
    """[units] the first and the last place of each, as its ancestors must fit before it and its descendants after."""
    ideals = Ideals(model)
    devices = np.repeat(np.arange(len(model.classes)), [len(kind.devices) for kind in model.classes])
    slack = WEIGHT_ROUNDING * ideals.total
    first = np.searchsorted(ideals.done_by(devices, known)[1:] + slack, ideals.least)
    last = np.searchsorted(ideals.total - ideals.left_for(devices, known)[1:] + slack, ideals.total - ideals.most)
    return first, places - 1 - last
