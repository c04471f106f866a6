"""The best split of the whole problem by an integer program, for what the relaxation leaves out.

Unequal links, the latency of parallel branches, a device with two stages and the rule that no device is idle
break the symmetry that makes larger problems tractable. Only the peaks of activations are relaxed here:
moved[h, a, b] is 1 if value h goes from a to b. The program is large, so it is for small problems; as it starts from a
good cut, it may improve that cut within the time limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.objective import Objective
from passes.partitioners.proof.cp_sat import Ending, Linear, run_in_steps
from passes.partitioners.proof.integer_program import GRAIN
from passes.partitioners.proof.whole.placement import Placement, unit_sets
from passes.partitioners.units import BYTES, COUNT, Core

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

_ALONE_FOR = 2.0  # steps of one worker, whose split is always the same: several find any of those that are as good


class Assignment(Placement):
    """The program of one core.  `known` is the value of some split, in seconds."""

    def __init__(self, core: Core, known: float) -> None:
        super().__init__(core)
        self.scale = GRAIN / known
        self.value = self.program.new_int_var(0, ceil(known * self.scale), "")
        match self.problem.objective:
            case Objective.throughput:
                self._bound_loads()
            case Objective.latency:
                self._bound_latency()
        self.program.minimize(self.value)

    def solve(self, stages: Sequence[int], deadline: Deadline) -> tuple[float, np.ndarray | None]:
        """A proven bound, and the stage of each unit in the best split found, if any.

        `stages[node]` is a good split, from which the search starts.
        """
        for unit, row in enumerate(self.x):
            for stage, variable in enumerate(row):
                self.program.add_hint(variable, int(stages[self.core.nodes[unit][0]] == stage))
        solver, ending = run_in_steps(self.program, deadline, _ALONE_FOR)
        if ending is Ending.impossible:
            return GRAIN / self.scale, None
        bound = solver.best_objective_bound / self.scale
        if ending is not Ending.solved:
            return bound, None
        return bound, self.placed(solver)

    def _bound_loads(self) -> None:
        core, problem = self.core, self.problem
        moved = self._moved(self.on, self.devices)
        for number, device in enumerate(problem.devices):
            compute = sum(self._compute(unit, device.kind) * row[number] for unit, row in enumerate(self.on))
            received, sent = [], []
            for (value, a, b), goes in moved.items() if not device.free_transfers else ():
                if b == number:
                    received.append(self._seconds(value, a, b) * goes)
            for value in range(len(core.values)) if not device.free_transfers else ():
                ways = [(self._seconds(value, number, b), moved[value, number, b]) for b in self.devices if b != number]
                if ways:
                    longest = self.program.new_int_var(0, max(seconds for seconds, _ in ways), "")
                    for seconds, goes in ways:
                        self.program.add(longest >= seconds * goes)
                    sent.append(longest)
            parts = (compute, sum(received), sum(sent))
            for load in parts if problem.overlap else (sum(parts),):
                self.program.add(self.value >= load)

    def _bound_latency(self) -> None:
        horizon = self.value.proto.domain[1]
        end = [self.program.new_int_var(0, horizon, "") for _ in self.stages]
        start = [self.program.new_int_var(0, horizon, "") for _ in self.stages]
        moved = self._moved(self.x, self.stages)
        n = len(self.devices)
        for t in self.stages:
            kind = self.problem.devices[t % n].kind
            receives = [
                self._seconds(value, a % n, t % n) * goes
                for (value, a, b), goes in moved.items()
                if b == t and a % n != t % n and not self.problem.devices[t % n].free_transfers
            ]
            compute = sum(self._compute(unit, kind) * row[t] for unit, row in enumerate(self.x))
            self.program.add(end[t] >= start[t] + compute + sum(receives))
            self.program.add(self.value >= end[t])
        for (_, a, b), goes in moved.items():
            self.program.add(start[b] >= end[a]).only_enforce_if(goes)

    def _moved(self, places: Sequence[Sequence[Linear]], among: range) -> dict[tuple[int, int, int], cp_model.IntVar]:
        """For each value and two places, a variable: whether it goes from the one to the other."""
        moved: dict[tuple[int, int, int], cp_model.IntVar] = {}
        for value, members in enumerate(unit_sets(self.core.values)):
            producer = int(self.core.producer[value])
            for a in among:
                for b in among:
                    if a != b:
                        goes = moved[value, a, b] = self.program.new_bool_var("")
                        for unit in members:
                            if unit != producer:
                                self.program.add(goes >= places[producer][a] + places[unit][b] - 1)
        return moved

    def _compute(self, unit: int, kind: int) -> int:
        time = self.core.time[kind, unit]
        return 0 if np.isinf(time) else floor(time * self.scale)

    def _seconds(self, value: int, source: int, target: int) -> int:
        link, sizes = self.problem.between(source, target), self.core.values.sizes[value]
        return floor((link.latency * sizes[COUNT] + sizes[BYTES] / link.bandwidth) * self.scale)
