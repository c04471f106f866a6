"""The search for the split whose last call ends first, and for a bound of all splits.

A game: one side picks a chain of calls, the other an average of paths. Each turn takes the cheapest chain for the
average, which is a bound; finds the longest path through its calls, which is its time; and gives that path a share in
the average. Calls that are in no chain cheaper than the best split are dropped on the way, and in the end the chains of
those that are left are timed (see `timed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.one_batch.chains import (
    CallWeights,
    ChainCall,
    UsedDevices,
    backward,
    cheapest_chain,
    extend,
    extend_back,
    forward,
)
from passes.partitioners.one_batch.easier import Easier
from passes.partitioners.one_batch.flow import Flow, ProgramPaths, Shares
from passes.partitioners.one_batch.listed import ListedCalls
from passes.partitioners.one_batch.repair import made_to_fit
from passes.partitioners.one_batch.timed import TimedChains
from passes.partitioners.problem.model import Problem
from passes.partitioners.proof.ideals import TooWide
from passes.partitioners.proof.prove import PROVEN, Proof
from passes.partitioners.proof.relaxed import relaxed
from passes.partitioners.search.first_cut import Cut, better

_MOST_CALLS = 12_000_000  # that are kept
TURNS = 60
_FIRST_SHARE = 0.3  # of the step that would lift the cheapest chain to the best value
_LEAST_SHARE = 1e-3
_GAIN, _IDLE = 0.02, 6  # turns in which the bound comes no nearer to the best value, by this share, end the game
_SAME = PROVEN / 2  # relative: values that differ by less are the same
_MOST_BEGUN = (8, 100, 1_000)  # chains to each ideal of which the seconds are known
_ROUNDING = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}  # relative, of sums over a chain


@dataclass(frozen=True)
class Searched:
    """The result of a search: a cut and a bound, and the paths for which the bound is so high.

    `doubted[nodes]` are moved nodes without which the bound might be higher.
    """

    proof: Proof
    flow: Flow
    doubted: np.ndarray


class Fastest:
    """The search over the ideals of an easier problem, or of the problem itself, for bounds and splits of `problem`."""

    def __init__(self, problem: Problem, easier: Easier, ideals: np.ndarray, paths: ProgramPaths) -> None:
        core = self.core = easier.core
        self.problem, self.paths, self.model = problem, paths, relaxed(core)
        self.credit, self.moved = easier.credit, easier.moved
        self.table = CallTable(self.model, ideals, core.problem.via_host, easier.moved)
        self.used = UsedDevices.of(self.model)
        self.rounding = _ROUNDING[self.table.exactly]
        self.times = np.array([node.time for node in core.problem.nodes], dtype=float).T

    def search(self, proof: Proof, flow: Flow, deadline: Deadline, turns: int = TURNS) -> Searched:
        """The best cut and bound that are found in time, after so many turns of the game at most."""
        nothing = np.zeros(self.paths.n, dtype=bool)
        shares = Shares(self.table, self.paths, flow, self.credit)
        every = ListedCalls(self.table, shares)
        ahead = self._ahead(every, deadline)
        if deadline.passed():
            return Searched(proof, flow, nothing)
        value = float(ahead[self.used.final, -1].min()) * (1 - self.rounding)
        proof = replace(proof, bound=max(proof.bound, min(value, proof.cut.value)))
        try:
            self.levels = self._kept(every, ahead, proof.cut.value * (1 + self.rounding), deadline)
        except TooWide:
            return Searched(proof, flow, nothing)
        proof, flow = self._played(proof, flow, deadline, turns)
        proof, chain = self._timed(proof, flow, deadline)
        nothing[self._doubted(chain)] = True
        return Searched(proof, flow, nothing)

    def _ahead(self, every: ListedCalls, deadline: Deadline) -> np.ndarray:
        """[states, ideals] the least sum of a chain to each ideal, of all calls."""
        best = np.full((self.used.count, len(self.table.ideals)), np.inf, dtype=self.table.exactly)
        best[0, 0] = 0.0
        for listed in every.ascending():
            if deadline.passed():
                break
            extend(best, listed.calls, listed.weight, self.used)
        return best

    def _kept(self, every: ListedCalls, ahead: np.ndarray, limit: float, deadline: Deadline) -> list[list[CallList]]:
        """The calls in chains of a sum below `limit`, by the size of the ideal at which they end.

        Raises TooWide if they are too many, or if the time is up.
        """
        behind = np.full(ahead.shape, np.inf, dtype=self.table.exactly)
        behind[self.used.final, -1] = 0.0
        levels: list[list[CallList]] = [[] for _ in range(self.core.n)]
        count = 0
        for size, calls, weight in every.descending():
            kept = self._through(calls, weight, ahead, behind) < limit
            levels[size - 1].append(calls.only(kept))
            extend_back(behind, levels[size - 1][-1], weight[kept], self.used)
            count += int(kept.sum())
            if count > _MOST_CALLS or deadline.passed():
                raise TooWide
        return levels

    def _played(self, proof: Proof, flow: Flow, deadline: Deadline, turns: int) -> tuple[Proof, Flow]:
        """The result of the turns of the game, with the calls that are kept."""
        best, step, share, bound, idle = flow, flow, 0.0, 0.0, 0
        for _ in range(turns):
            value, chain, proof = self._turn(flow, proof)
            if not chain:
                return replace(proof, bound=proof.cut.value), flow
            length, path = self._longest(chain)
            idle = 0 if value > bound + _GAIN * (proof.cut.value - value) else idle + 1
            if value > bound:
                bound, best, step = value, flow, self.paths.along(path)
                proof = replace(proof, bound=max(value, proof.bound))
                reaches = (proof.cut.value - value) / max(length - value, 1e-9 * length)
                share = min(1.0, 1.3 * share or _FIRST_SHARE * reaches)
            else:
                step, share = step.mixed(self.paths.along(path), 0.5), share / 2
            if proof.complete() or share < _LEAST_SHARE or idle == _IDLE or deadline.passed():
                break
            flow = best.mixed(step, share)
        return proof, best

    def _turn(self, flow: Flow, proof: Proof) -> tuple[float, tuple[ChainCall, ...], Proof]:
        """The bound from the cheapest chain for a flow, that chain (none if none is left), and the best cut so far."""
        shares = Shares(self.table, self.paths, flow, self.credit)
        weights = self._weights(shares)
        ahead = forward(self.levels, weights, self.used, len(self.table.ideals))
        value = float(ahead[self.used.final, -1].min())
        if value >= proof.cut.value:
            return value, (), proof
        chain = cheapest_chain(self.levels, weights, self.used, ahead, self.table.ideals.sum(axis=1))
        proof = replace(proof, cut=better(proof.cut, self._cut(chain)) or proof.cut)
        self._drop(weights, ahead, proof.cut.value * (1 + self.rounding))
        return value * (1 - self.rounding), chain, proof

    def _weights(self, shares: Shares) -> list[list[np.ndarray]]:
        return [[shares.of(calls) for calls in level] for level in self.levels]

    def _drop(self, weights: CallWeights, ahead: np.ndarray, limit: float) -> None:
        """Drop the calls that are in no chain of a sum below `limit`."""
        behind = backward(self.levels, weights, self.used, len(self.table.ideals))
        for level, of_level in zip(self.levels, weights, strict=True):
            for i, calls in enumerate(level):
                level[i] = calls.only(self._through(calls, of_level[i], ahead, behind) < limit)

    def _through(self, calls: CallList, weight: np.ndarray, ahead: np.ndarray, behind: np.ndarray) -> np.ndarray:
        """[calls] the least sum of a chain with each of them."""
        before, after = self.used.before[calls.kind][:, None], self.used.after[calls.kind][:, None]
        return (ahead[before, calls.begin] + behind[after, calls.end]).min(axis=0) + weight

    def _timed(self, proof: Proof, flow: Flow, deadline: Deadline) -> tuple[Proof, tuple[ChainCall, ...]]:
        """The same with the chain that ends first, of those that are left, if it may end before the cut does."""
        chain: tuple[ChainCall, ...] = ()
        shares = Shares(self.table, self.paths, flow, self.credit)
        weights = self._weights(shares)
        for most in _MOST_BEGUN:
            if proof.complete() or deadline.passed():
                break
            limit = proof.cut.value * (1 - _SAME + self.rounding)
            chains = TimedChains(self.table, self.paths, self.used, shares, limit, most)
            found = chains.earliest(self.levels, weights, deadline)
            cut = better(proof.cut, self._cut(found.chain) if found.chain else None) or proof.cut
            bound = max(proof.bound, found.bound * (1 - _SAME))
            proof, chain = Proof(cut, min(bound, cut.value)), found.chain or chain
            if found.bound >= found.seconds * (1 - _SAME):
                break
        return proof, chain

    def _doubted(self, chain: tuple[ChainCall, ...]) -> list[int]:
        """The moved nodes that calls of a chain may lack, or for which they do not wait."""
        found: set[int] = set()
        alone = np.zeros(self.core.n, dtype=bool)
        tail, head = self.paths.edges.T
        for call in chain:
            units = self._units(call)
            if self.model.classes[call.kind].node_by_node:
                alone |= units
                continue
            found |= {*self.table.slack.lacked(call.begin, call.end).tolist()}
            read = tail[units[self.core.unit_of[head]] & alone[self.core.unit_of[tail]] & (self.credit[tail] > 0)]
            found |= {*np.flatnonzero(np.isin(self.core.unit_of, self.core.unit_of[read]) & (self.credit > 0)).tolist()}
        return sorted(found)

    def _cut(self, chain: tuple[ChainCall, ...]) -> Cut | None:
        """The split with these calls, on the devices of their classes in turn; None if it breaks a rule."""
        stage = np.zeros(self.core.n, dtype=np.int64)
        left = [list(devices.devices) for devices in self.model.classes]
        for call in chain:
            single = self.model.classes[call.kind].node_by_node
            stage[self._units(call)] = left[call.kind][0] if single else left[call.kind].pop(0)
        return made_to_fit(self.problem, self.paths, self.moved, stage[self.core.unit_of].tolist())

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
