"""The proof that a cut is the best, or a better cut.

The relaxed problem without memory comes first, being the easiest: if nothing beats the cut there, nothing
does. Where memory could bind, the bound is raised once more with memory in it.

Either way units are fused first (see `contract`). Then all ideals that could beat the cut are searched (see
`exact`), which is fast where the program is a chain with some width, however long it is and however many the
stages are. Where there are too many ideals, an integer program takes over (see `integer_program`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.evaluation import pipeline_order
from passes.partitioners.proof.contract import contracted
from passes.partitioners.proof.exact import Exact
from passes.partitioners.proof.ideals import TooWide
from passes.partitioners.proof.integer_program import IntegerProgram
from passes.partitioners.proof.relaxed import Relaxed, Stages, relaxed
from passes.partitioners.proof.whole.any_split import any_split, is_small
from passes.partitioners.proof.whole.assignment import Assignment
from passes.partitioners.proof.whole.placement import MOST_TERMS, size
from passes.partitioners.search.first_cut import PRECISION, Cut, better, cut_along, judged
from passes.partitioners.shortage import shortage
from passes.partitioners.units import Core

PROVEN = 1e-5  # relative: a bound as close as that proves a value the best (programs round times down)
MOST_IDEALS = 20_000
MOST_VARIABLES = 150_000
MANY_TO_PLACE = 2_000
FEW_CHOICES = 5  # units for each boolean of a program
MOST_UNITS = 20_000  # the table of their ancestors takes a byte for each pair


@dataclass(frozen=True)
class Proof:
    """A cut, and a lower bound of the value of every cut."""

    cut: Cut
    bound: float

    def complete(self) -> bool:
        return self.bound >= self.cut.value * (1 - PROVEN)


def any_cut(core: Core, deadline: Deadline) -> Cut:
    """A cut that fits, where no order of units gave one.  Raises Infeasible if there is none, or none is found.

    The units of the core must be so small that no split parts one.
    """
    problem, deadline = core.problem, Deadline(deadline.left() / 2)
    if is_small(core) or problem.node_by_node or problem.n_stages > len(problem.devices):
        return any_split(core, deadline)
    model = relaxed(core)
    longest = np.where(np.isinf(core.time), 0.0, core.time).max(axis=0)
    known = 1.0 + float(longest.sum() + 2 * model.cost.max(axis=0).sum())
    if core.n * len(problem.devices) > MOST_VARIABLES // 10:
        raise shortage(core, proven=False)
    try:
        found = Exact(model).search(known, MOST_IDEALS, deadline)
    except TooWide:
        answer = IntegerProgram(model, known).solve(np.zeros(core.n, dtype=np.int64), deadline)
        impossible, stages = answer.bound >= known and not answer.stages, answer.stages
    else:
        impossible, stages = found is None, found.stages if found else ()
    cut = realised(model, stages)
    if cut is None:
        raise shortage(core, proven=impossible)
    return cut


def proven(core: Core, cut: Cut, bound: float, deadline: Deadline) -> Proof:
    """The best cut and the best bound that are found in time."""
    proof = Proof(cut, bound)
    models = [relaxed(core, memory=False)]
    if relaxed(core).memory_matters:
        models.append(relaxed(core))
    for model in models:
        if not proof.complete() and not deadline.passed():
            proof = _searched(model, proof, deadline)
    return proof


def none_below(core: Core, value: float, deadline: Deadline) -> bool:
    """Whether it is proven in time that every cut has at least this value.

    A better split of the problem without memory is looked for first; if it fits the memory, there is one with it.
    """
    full = relaxed(core)
    if (better_split := _split_below(relaxed(core, memory=False), value, deadline)) is None:
        return True
    if not full.memory_matters or better_split.fits(full):
        return False
    return _split_below(full, value, deadline) is None


@dataclass(frozen=True, eq=False)
class _Split:
    """A split of a relaxed problem, or what is not known to be none: without stages."""

    model: Relaxed
    stages: Stages = ()

    def fits(self, full: Relaxed) -> bool:
        """Whether it is known, and no device of `full` holds more than its memory."""
        return bool(self.stages) and replace(full, core=self.model.core).holds(self.stages)


def _split_below(model: Relaxed, value: float, deadline: Deadline) -> _Split | None:
    """A split of a lower value; None if it is proven that there is none.

    Units are fused once, and further if there are too many ideals then: the first round takes less than the table of
    the ancestors of all units, and fuses most.
    """
    small = model
    for rounds in (1, None):
        if not deadline.passed():
            small = contracted(small, value, rounds)
        if deadline.passed() or small.core.n > MOST_UNITS:
            continue
        with suppress(TooWide):
            found = Exact(small).search(value, MOST_IDEALS, deadline)
            return None if found is None else _Split(small, found.stages)
    program = None if deadline.passed() or small.core.n > MOST_UNITS else IntegerProgram(small, value)
    if program is None or program.variables > MOST_VARIABLES:
        return _Split(small)
    answer = program.below(deadline)
    return None if answer.bound >= value else _Split(small, answer.stages)


def _searched(model: Relaxed, proof: Proof, deadline: Deadline) -> Proof:
    """Better and better splits until there is none; the last value is the optimum of the relaxed problem."""
    cut, target, small = proof.cut, proof.cut.value, model
    while target > proof.bound:
        below = target * (1 - PRECISION)
        small = contracted(small, below)
        if small.core.n > MOST_UNITS:
            return Proof(cut, proof.bound)
        if _is_nearly_placed(small, target):
            return _programmed(small, Proof(cut, proof.bound), target, deadline)
        try:
            found = Exact(small).search(below, MOST_IDEALS, deadline)
        except TooWide:
            return _programmed(small, Proof(cut, proof.bound), target, deadline)
        if found is None:
            break
        cut = better(cut, realised(small, found.stages, cut.value)) or cut
        target = min(found.value, cut.value)
    return Proof(cut, max(proof.bound, target))


def _is_nearly_placed(model: Relaxed, known: float) -> bool:
    """Whether a known value leaves most units of a large program one place: an integer program has few choices."""
    return model.core.n > MANY_TO_PLACE and IntegerProgram(model, known).variables < model.core.n // FEW_CHOICES


def _programmed(model: Relaxed, proof: Proof, known: float, deadline: Deadline) -> Proof:
    """A better cut, a better bound or both, by an integer program."""
    program = IntegerProgram(model, known)
    if program.variables > MOST_VARIABLES:
        return proof
    answer = program.solve(_places(model, proof.cut), deadline)
    cut = better(proof.cut, realised(model, answer.stages, proof.cut.value)) or proof.cut
    return Proof(cut, max(proof.bound, min(answer.bound, known)))


def assigned(core: Core, proof: Proof, deadline: Deadline) -> Proof:
    """The best cut and bound by an integer program of the whole problem, if that is small enough."""
    if proof.complete() or deadline.passed() or size(core) > MOST_TERMS or core.problem.node_by_node:
        return proof
    bound, stage = Assignment(core, proof.cut.value).solve(proof.cut.stages, deadline)
    cut = proof.cut if stage is None else better(proof.cut, judged(core, stage)) or proof.cut
    return Proof(cut, max(proof.bound, min(bound, cut.value)))


def _places(model: Relaxed, cut: Cut) -> np.ndarray:
    """[units] the place of each unit along the pipeline of a cut."""
    order = pipeline_order(model.core.problem, cut.stages)
    place = np.empty(model.core.n, dtype=np.int64)
    place[model.core.unit_of] = [order.index(stage) for stage in cut.stages]
    return place


def realised(model: Relaxed, stages: Stages, below: float = inf) -> Cut | None:
    """The split with these stages in the full problem, or a better one with the same order of units.

    A better one is one whose value is `below` another, too.
    """
    if not stages:
        return None
    core = model.core
    stage, left = np.zeros(core.n, dtype=np.int64), [list(kind.devices) for kind in model.classes]
    devices: list[int] = []
    for kind, units in stages:
        devices.append(left[kind].pop(0))
        stage[units] = devices[-1]
    order = np.concatenate([np.flatnonzero(units) for _, units in stages])
    idle = [number for number in range(len(core.problem.devices)) if number not in devices]
    cut = judged(core, stage)
    least = min(below, cut.value) if cut else below
    return better(cut, cut_along(core, order, (*devices, *idle), least * (1 - PRECISION)))
