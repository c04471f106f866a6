"""Splits that are better than a given one, and the proof that there are none: less to ask than the best split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import inf

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.copies import inline
from passes.partitioners.problem.model import Problem, Solution
from passes.partitioners.proof.prove import none_below
from passes.partitioners.search.first_cut import cut_along, first_bound
from passes.partitioners.search.orders import orders
from passes.partitioners.search.plain import MANY_UNITS
from passes.partitioners.search.seats import sequences
from passes.partitioners.solver import indivisible_parts, returns, solve
from passes.partitioners.units import Core


@dataclass(frozen=True)
class Rivals:
    """The splits of a problem, in order of their values.

    Both questions raise Infeasible where no split obeys the problem. Problems whose splits cannot be searched below a
    value are solved, once: those of a latency, and those whose first and last stage may share a device.
    """

    problem: Problem
    deadline: Deadline

    def found_below(self, value: float) -> float:
        """The value of a split below this one; infinite where none is found.

        It is the first one found along an order of a large program, the best along all of a small one.
        """
        if self._solved:
            return self._best.value if self._best.value < value else inf
        core = self._core
        devices, least = next(sequences(core.problem)), inf
        for order in islice(orders(core), 1 if core.n > MANY_UNITS else None):
            cut = cut_along(core, order, devices, min(value, least))
            if cut is not None and cut.value < value:
                least = min(least, cut.value)
        return least

    def none_below(self, value: float) -> bool:
        """Whether it is proven that no split is below this value."""
        if self._solved:
            return self._best.lower_bound >= value
        return first_bound(self._core) >= value or none_below(self._core, value, self.deadline)

    @property
    def _solved(self) -> bool:
        return returns(self._whole) or not self._whole.objective.of_loads

    @cached_property
    def _whole(self) -> Problem:
        return replace(inline(self.problem), modules=())

    @cached_property
    def _core(self) -> Core:
        return indivisible_parts(self._whole)

    @cached_property
    def _best(self) -> Solution:
        return solve(self.problem, self.deadline.left())
