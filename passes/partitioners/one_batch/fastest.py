"""The search for the split whose last call ends first, and for a bound of all splits.

A game: one side picks a chain of calls, the other an average of paths. Each turn takes the cheapest chain for the
average, which is a bound; finds the longest path through its calls, which is its time; and gives that path a share in
the average. Calls that are in no chain cheaper than the best split are dropped on the way, and in the end the chains of
those that are left are timed (see `timed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.one_batch.chains import (
    ChainCall,
    UsedDevices,
    backward,
    cheapest_chain,
    extend,
    extend_back,
    forward,
)
from passes.partitioners.one_batch.flow import Flow, ProgramPaths, Shares
from passes.partitioners.one_batch.timed import TimedChains
from passes.partitioners.proof.ideals import TooWide
from passes.partitioners.proof.prove import PROVEN, Proof
from passes.partitioners.proof.relaxed import relaxed
from passes.partitioners.search.first_cut import Cut, better, judged
from passes.partitioners.units import Core

_MOST_CALLS = 12_000_000  # that are kept
_TURNS = 60
_FIRST_SHARE = 0.3  # of the step that would lift the cheapest chain to the best value
_LEAST_SHARE = 1e-3
_SAME = PROVEN / 2  # relative: values that differ by less are the same
_MOST_BEGUN = (8, 100, 1_000)  # chains to each ideal of which the seconds are known
_ROUNDING = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}  # relative, of sums over a chain


@dataclass(frozen=True)
class Searched:
    """The result of a search: a cut and a bound, and the paths for which the bound is so high."""

    proof: Proof
    flow: Flow


class Fastest:
    """The search over the ideals of one core. What it finds are splits and bounds of that core's problem."""

    def __init__(self, core: Core, ideals: np.ndarray, paths: ProgramPaths) -> None:
        self.core, self.paths, self.model = core, paths, relaxed(core)
        self.table = CallTable(self.model, ideals, core.problem.via_host)
        self.used = UsedDevices.of(self.model)
        self.rounding = _ROUNDING[self.table.exactly]
        self.sizes = range(1, core.n + 1)
        self.times = np.array([node.time for node in core.problem.nodes], dtype=float).T

    def search(self, proof: Proof, flow: Flow, deadline: Deadline) -> Searched:
        """The best cut and bound that are found in time."""
        shares = Shares(self.table, self.paths, flow)
        ahead = self._ahead(shares, deadline)
        if deadline.passed():
            return Searched(proof, flow)
        value = float(ahead[self.used.final, -1].min()) * (1 - self.rounding)
        proof = replace(proof, bound=max(proof.bound, min(value, proof.cut.value)))
        try:
            self.levels = self._kept(shares, ahead, proof.cut.value * (1 + self.rounding), deadline)
        except TooWide:
            return Searched(proof, flow)
        return self._played(proof, flow, deadline)

    def _ahead(self, shares: Shares, deadline: Deadline) -> np.ndarray:
        """[states, ideals] the least sum of a chain to each ideal, of all calls, none of which is kept."""
        best = np.full((self.used.count, len(self.table.ideals)), np.inf, dtype=self.table.exactly)
        best[0, 0] = 0.0
        for size, kind in product(self.sizes, range(len(self.model.classes))):
            if deadline.passed():
                break
            if self.model.classes[kind].node_by_node:
                extend(best, self.table.single(kind, size), shares.of, self.used)
                continue
            begin, end, seconds = self.table.stages(kind, size)
            weight = shares.between(begin, end) * seconds
            for before, after in zip(self.used.before[kind], self.used.after[kind], strict=True):
                offers = (best[before, begin, None] + weight).min(axis=0, initial=np.inf)
                best[after, end] = np.minimum(best[after, end], offers)
        return best

    def _kept(self, shares: Shares, ahead: np.ndarray, limit: float, deadline: Deadline) -> list[list[CallList]]:
        """The calls in chains of a sum below `limit`, by the size of the ideal at which they end.

        Raises TooWide if they are too many, or if the time is up.
        """
        behind = np.full(ahead.shape, np.inf, dtype=self.table.exactly)
        behind[self.used.final, -1] = 0.0
        levels: list[list[CallList]] = [[] for _ in self.sizes]
        count = 0
        for size, kind in product(reversed(self.sizes), range(len(self.model.classes))):
            calls = self._kept_ending(shares, ahead, behind, kind, size, limit)
            extend_back(behind, calls, shares.of, self.used)
            levels[size - 1].append(calls)
            count += len(calls.begin)
            if count > _MOST_CALLS or deadline.passed():
                raise TooWide
        return levels

    def _kept_ending(
        self, shares: Shares, ahead: np.ndarray, behind: np.ndarray, kind: int, size: int, limit: float
    ) -> CallList:
        if self.model.classes[kind].node_by_node:
            calls = self.table.single(kind, size)
            return calls.only(self._through(calls, shares, ahead, behind) < limit)
        begin, end, seconds = self.table.stages(kind, size)
        weight = shares.between(begin, end) * seconds
        least = np.full(seconds.shape, np.inf, dtype=self.table.exactly)
        for before, after in zip(self.used.before[kind], self.used.after[kind], strict=True):
            np.minimum(least, ahead[before, begin, None] + behind[after, end], out=least)
        to, at = np.nonzero((least + weight < limit).T)
        return CallList(kind, begin[at].astype(np.int32), end[to].astype(np.int32), seconds[at, to])

    def _played(self, proof: Proof, flow: Flow, deadline: Deadline) -> Searched:
        """The result of the turns of the game, with the calls that are kept."""
        best, step, share = flow, flow, 0.0
        for _ in range(_TURNS):
            value, chain, proof = self._turn(flow, proof)
            if not chain:
                return Searched(replace(proof, bound=proof.cut.value), flow)
            length, path = self._longest(chain)
            if value > proof.bound or not share:
                proof, best, step = replace(proof, bound=max(value, proof.bound)), flow, self.paths.along(path)
                reaches = (proof.cut.value - value) / max(length - value, 1e-9 * length)
                share = min(1.0, 1.3 * share or _FIRST_SHARE * reaches)
            else:
                step, share = step.mixed(self.paths.along(path), 0.5), share / 2
            if proof.complete() or share < _LEAST_SHARE or deadline.passed():
                break
            flow = best.mixed(step, share)
        return Searched(self._timed(proof, best, deadline), best)

    def _turn(self, flow: Flow, proof: Proof) -> tuple[float, tuple[ChainCall, ...], Proof]:
        """The bound from the cheapest chain for a flow, that chain (none if none is left), and the best cut so far."""
        shares = Shares(self.table, self.paths, flow)
        ahead = forward(self.levels, shares.of, self.used, len(self.table.ideals))
        value = float(ahead[self.used.final, -1].min())
        if value >= proof.cut.value:
            return value, (), proof
        chain = cheapest_chain(self.levels, shares.of, self.used, ahead, self.table.ideals.sum(axis=1))
        proof = replace(proof, cut=better(proof.cut, self._cut(chain)) or proof.cut)
        self._drop(shares, ahead, proof.cut.value * (1 + self.rounding))
        return value * (1 - self.rounding), chain, proof

    def _drop(self, shares: Shares, ahead: np.ndarray, limit: float) -> None:
        """Drop the calls that are in no chain of a sum below `limit`."""
        behind = backward(self.levels, shares.of, self.used, len(self.table.ideals))
        for level in self.levels:
            for i, calls in enumerate(level):
                level[i] = calls.only(self._through(calls, shares, ahead, behind) < limit)

    def _through(self, calls: CallList, shares: Shares, ahead: np.ndarray, behind: np.ndarray) -> np.ndarray:
        """[calls] the least sum of a chain with each of them."""
        before, after = self.used.before[calls.kind][:, None], self.used.after[calls.kind][:, None]
        return (ahead[before, calls.begin] + behind[after, calls.end]).min(axis=0) + shares.of(calls)

    def _timed(self, proof: Proof, flow: Flow, deadline: Deadline) -> Proof:
        """The same with the chain that ends first, of those that are left."""
        for most in _MOST_BEGUN:
            if proof.complete() or deadline.passed():
                break
            limit = proof.cut.value * (1 - _SAME + self.rounding)
            shares = Shares(self.table, self.paths, flow)
            chains = TimedChains(self.table, self.paths, self.used, shares, self.levels, limit, most)
            found = chains.earliest(deadline)
            cut = better(proof.cut, self._cut(found.chain) if found.chain else None) or proof.cut
            bound = max(proof.bound, found.bound * (1 - _SAME))
            proof = Proof(cut, min(bound, cut.value))
        return proof

    def _cut(self, chain: tuple[ChainCall, ...]) -> Cut | None:
        """The split with these calls, on the devices of their classes in turn; None if it breaks a rule."""
        stage = np.zeros(self.core.n, dtype=np.int64)
        left = [list(devices.devices) for devices in self.model.classes]
        for call in chain:
            single = self.model.classes[call.kind].node_by_node
            stage[self._units(call)] = left[call.kind][0] if single else left[call.kind].pop(0)
        return judged(self.core, stage)

    def _longest(self, chain: tuple[ChainCall, ...]) -> tuple[float, list[int]]:
        """The length and the nodes of the longest path through the calls of a chain."""
        unit_of, (tail, head) = self.core.unit_of, self.paths.edges.T
        number, single = np.zeros(self.core.n, dtype=np.int64), np.zeros(self.core.n, dtype=bool)
        seconds = np.zeros(len(unit_of))
        for i, call in enumerate(chain):
            units, devices = self._units(call), self.model.classes[call.kind]
            number[units], single[units] = i, devices.node_by_node
            here = units[unit_of]
            seconds[here] = self.times[devices.kind, here] if devices.node_by_node else call.seconds
        enters = (number[unit_of[tail]] != number[unit_of[head]]) | single[unit_of[head]]
        return self.paths.longest((enters * seconds[head]).tolist(), seconds.tolist())

    def _units(self, call: ChainCall) -> np.ndarray:
        return self.table.ideals[call.end] & ~self.table.ideals[call.begin]
