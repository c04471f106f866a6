"""Prove a cut the best, or find the best: contract, then search all ideals that could beat it.

The relaxed problem without memory comes first, being the easiest: if nothing beats the cut there, nothing
does; if something does and keeps the rules, it is optimal. Else its value is a bound, and memory comes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.partitioners.clock import Clock
from passes.partitioners.contract import contracted
from passes.partitioners.core import Core
from passes.partitioners.exact import Exact, Found
from passes.partitioners.ideals import TooWide
from passes.partitioners.relaxed import Relaxed, relaxed
from passes.partitioners.search import Cut, along, better, judged

PRECISION = 1e-9  # relative: values that differ by less are the same
MOST_IDEALS = 20_000


@dataclass(frozen=True)
class Proof:
    """A cut, and a value that no cut is better than."""

    cut: Cut
    bound: float

    def complete(self) -> bool:
        return self.bound >= self.cut.value * (1 - 2 * PRECISION)


def proven(core: Core, cut: Cut, bound: float, clock: Clock) -> Proof:
    """The best cut and bound that can be had from searching ideals."""
    proof = Proof(cut, bound)
    models = [relaxed(core, memory=False)]
    if relaxed(core).memory_matters:
        models.append(relaxed(core))
    for model in models:
        if not proof.complete():
            proof = _searched(model, proof, clock)
    return proof


def _searched(model: Relaxed, proof: Proof, clock: Clock) -> Proof:
    """Search for ever better splits until there is none; the last value is the optimum of the relaxed problem."""
    cut, target = proof.cut, proof.cut.value
    while True:
        below = target * (1 - PRECISION)
        small = contracted(model, below)
        try:
            found = Exact(small).search(below, MOST_IDEALS, clock)
        except TooWide:
            return Proof(cut, proof.bound)
        if found is None:
            return Proof(cut, max(proof.bound, target))
        target = found.value
        cut = better(cut, _realised(small, found)) or cut


def _realised(model: Relaxed, found: Found) -> Cut | None:
    """The split found; or, if it breaks a rule, the best that can be made of it by moving its cuts."""
    stage = _stages(model, found)
    cut = judged(model.core, stage)
    if cut is not None or not found.stages:
        return cut
    order = np.concatenate([np.flatnonzero(units) for _, units in found.stages])
    devices = [int(stage[units][0]) for _, units in found.stages if units.any()]
    idle = [number for number in range(len(model.core.problem.devices)) if number not in devices]
    return along(model.core, order, (*devices, *idle))


def _stages(model: Relaxed, found: Found) -> np.ndarray:
    """The stage of each unit: devices of a class are used in the order listed."""
    left = [list(kind.devices) for kind in model.classes]
    stage = np.zeros(model.core.n, dtype=np.int64)
    for kind, units in found.stages:
        stage[units] = left[kind].pop(0)
    return stage
