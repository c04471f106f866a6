"""The rules of a split as an integer program: x[u, s] is 1 if unit u is in stage s.

An edge between two stages orders their ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from passes.partitioners.proof.cp_sat import Linear, new_program
from passes.partitioners.proof.integer_program import GRAIN
from passes.partitioners.proof.whole.held import most_held
from passes.partitioners.units import Core, Sets

if TYPE_CHECKING:
    from ortools.sat.python import cp_model


MOST_TERMS = 60_000


def size(core: Core) -> int:
    """The approximate number of variables and constraints of a core's program."""
    stages = core.problem.n_stages
    return core.n * stages + (len(core.edges) + len(core.values.members)) * stages**2


class Placement:
    """The program of one core, whose solutions are its splits.  With `peaks`, they have memory for all that they hold.

    Without, the values that a stage holds are left out, and there are more solutions.
    """

    def __init__(self, core: Core, *, peaks: bool = False) -> None:
        self.core, self.problem, self.program, self.peaks = core, core.problem, new_program(), peaks
        self.stages, self.devices = range(core.problem.n_stages), range(len(core.problem.devices))
        self.x = [[self.program.new_bool_var("") for _ in self.stages] for _ in range(core.n)]
        for row in self.x:
            self.program.add_exactly_one(row)
        n = len(self.devices)
        self.on = [[sum(row[s] for s in self.stages if s % n == device) for device in self.devices] for row in self.x]
        self._keep_rules()
        if self.problem.node_by_node:
            self._keep_order_of_calls()
        else:
            self._keep_order()

    def placed(self, solver: cp_model.CpSolver) -> np.ndarray:
        """[units] the stage of each unit in a solution."""
        return np.array([next(s for s in self.stages if solver.boolean_value(row[s])) for row in self.x])

    def _keep_rules(self) -> None:
        """Constraints: groups on one device, units only where they can run, memory, and no idle device."""
        program, core = self.program, self.core
        for group in self.problem.groups:
            first, *others = sorted({int(core.unit_of[node]) for node in group})
            for other in others:
                for device in self.devices:
                    program.add(self.on[first][device] == self.on[other][device])
        for number, device in enumerate(self.problem.devices):
            here = [row[number] for row in self.on]
            for unit in np.flatnonzero(np.isinf(core.time[device.kind])):
                program.add(here[unit] == 0)
            if self.problem.every_device:
                program.add(sum(here) >= 1)
            if np.isfinite(device.memory):
                self._bound_memory(number, here, device.memory)

    def _bound_memory(self, device: int, here: Sequence[Linear], memory: float) -> None:
        def scaled(size: float) -> int:
            return min(floor(size * GRAIN / max(memory, 1e-9)), GRAIN + 1)

        held = sum(scaled(size) * there for size, there in zip(self.core.keeps, here, strict=True))
        for readers, size in zip(unit_sets(self.core.weights), self.core.weights.sizes[:, 0], strict=True):
            stands = self.program.new_bool_var("")
            for unit in readers:
                self.program.add(stands >= here[unit])
            held += scaled(size) * stands
        for stage in self.stages if self.peaks else ():
            if self.problem.device_of(stage) == device:
                nodes = [self.x[unit][stage] for unit in self.core.unit_of.tolist()]
                held += most_held(self.program, self.problem, nodes, scaled)
        self.program.add(held <= GRAIN)

    def _keep_order(self) -> None:
        """Constraints: if an edge leads from one stage to another, the one ranks before the other."""
        rank = [self.program.new_int_var(0, len(self.stages) - 1, "") for _ in self.stages]
        for s in self.stages:
            for t in self.stages:
                if s == t:
                    continue
                follows = self.program.new_bool_var("")
                self.program.add(rank[s] < rank[t]).only_enforce_if(follows)
                if self.problem.fixed_order and s > t:
                    self.program.add(follows == 0)
                for a, b in self.core.edges.tolist():
                    self.program.add(follows >= self.x[a][s] + self.x[b][t] - 1)

    def _keep_order_of_calls(self) -> None:
        """Constraints: an edge between two calls leads from a lower rank to a higher one.

        The units of a device that runs node by node are calls of their own. Of a fixed order, those rules are left out
        that such calls may change.
        """
        ranks = range(len(self.stages) + self.core.n)
        rank_of_stage = [self.program.new_int_var(0, ranks[-1], "") for _ in self.stages]
        rank = [self.program.new_int_var(0, ranks[-1], "") for _ in self.x]
        alone = [self.problem.devices[self.problem.device_of(s)].node_by_node for s in self.stages]
        together = [s for s in self.stages if not alone[s]]
        for unit, row in enumerate(self.x):
            for s in together:
                self.program.add(rank[unit] == rank_of_stage[s]).only_enforce_if(row[s])
        for a, b in self.core.edges.tolist():
            for s in self.stages:
                leaves = [self.x[a][s]] if alone[s] else [self.x[a][s], self.x[b][s].negated()]
                self.program.add(rank[a] < rank[b]).only_enforce_if(leaves)
            for s in together if self.problem.fixed_order else ():
                for t in (t for t in together if t < s):
                    self.program.add_bool_or(self.x[a][s].negated(), self.x[b][t].negated())


def unit_sets(sets: Sets) -> list[list[int]]:
    """The members of each set."""
    return [part.tolist() for part in np.split(sets.members, sets.starts[1:-1])] if len(sets) else []
