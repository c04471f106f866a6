"""A better split of the relaxed problem, or the proof that there is none, by a dynamic program over ideals.

The rest of a pipeline depends only on the devices used so far and the ideal that they have done:

    best[used + d, J] = min over ideals I inside J of  max(best[used, I], load of J - I on d).

Few ideals matter. Only values under `below` are searched, so the devices used can have done only so much, and
must leave no more than the others can do; and as every value open at a cut
was sent by a device before it, and is received by one after it, the cost of open values counts against both.

Of the ideals that can be reached under `below`, only those that are not dominated are kept (see `dominated`), and
the next layer is listed from the lightest of them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.proof.dominated import Dominance
from passes.partitioners.proof.ideal_pairs import IdealPairs
from passes.partitioners.proof.ideals import Ideals, TooWide
from passes.partitioners.proof.relaxed import Relaxed, Stages

PAIRS_AT_ONCE = 2_000_000  # pairs of ideals looked at at once

Used = tuple[int, ...]  # how many devices of each class are in use; with a fixed chain, (how many,)


@dataclass(eq=False)
class Layer:
    """Ideals that the devices in use can have done, each with its least bottleneck and the last step to it."""

    ideals: np.ndarray  # [ideals, units]
    best: np.ndarray
    last_class: np.ndarray
    before: np.ndarray  # the number, in the previous layer, of the ideal at which the last stage began


@dataclass(frozen=True, eq=False)
class RelaxedSplit:
    """A split, and its value in the relaxed problem."""

    value: float
    stages: Stages


class Exact:
    """The search for the best split of a relaxed problem."""

    def __init__(self, model: Relaxed) -> None:
        self.model = model
        self.ideals = Ideals(model)
        self.pays = np.array([not kind.free_transfers for kind in model.classes])
        self.dominance = Dominance(model)
        unlimited = np.isfinite(model.time).all() and not model.memory_matters
        self.simple = len(model.classes) == 1 and self.pays[0] and unlimited and not model.overlap

    def search(self, below: float, limit: int, deadline: Deadline) -> RelaxedSplit | None:
        """A split of a value less than `below`; None proves that there is none.

        Raises TooWide if more than `limit` ideals matter somewhere, or if the time is up.
        """
        origin = np.zeros((1, self.model.core.n), dtype=bool)
        zero = np.zeros(1, dtype=np.int64)
        first = self._none()
        layers = {first: Layer(origin, np.zeros(1), zero, zero)}
        answer: Used | None = None
        for used in self._states():
            if below <= 0:
                break
            if deadline.passed():
                raise TooWide
            layer = self._layer(used, layers, below, limit)
            if layer is None:
                continue
            layers[used] = layer
            complete = np.flatnonzero(layer.ideals.all(axis=1))
            if len(complete) and layer.best[complete[0]] < below:
                below, answer = float(layer.best[complete[0]]), used
        return None if answer is None else RelaxedSplit(below, tuple(self._trace(layers, answer))[::-1])

    def _none(self) -> Used:
        return (0,) if self.model.chain else (0,) * len(self.model.classes)

    def _states(self) -> list[Used]:
        if self.model.chain:
            return [(k,) for k in range(1, len(self.model.chain) + 1)]
        counts = product(*(range(len(kind.devices) + 1) for kind in self.model.classes))
        return sorted(counts, key=sum)[1:]

    def _moves(self, used: Used) -> Iterator[tuple[Used, int]]:
        """The states from which one more device leads to `used`, and the class of that device."""
        if self.model.chain:
            yield (used[0] - 1,), self.model.chain[used[0] - 1]
            return
        for kind, count in enumerate(used):
            if count:
                yield (*used[:kind], count - 1, *used[kind + 1 :]), kind

    def _split_devices(self, used: Used) -> tuple[np.ndarray, np.ndarray]:
        """[classes] how many devices are in use, and how many are left."""
        everything = np.array([len(kind.devices) for kind in self.model.classes])
        if self.model.chain:
            mine = np.bincount(self.model.chain[: used[0]], minlength=len(everything))
        else:
            mine = np.array(used)
        return mine, everything - mine

    def _layer(self, used: Used, layers: dict[Used, Layer], below: float, limit: int) -> Layer | None:
        moves = [(layers[before], kind) for before, kind in self._moves(used) if before in layers]
        if not moves:
            return None
        mine, rest = self._split_devices(used)
        ideals = self._candidates(moves, mine, rest, below, limit)
        if not len(ideals):
            return None
        pairs = IdealPairs(self.model, np.concatenate([layer.ideals for layer, _ in moves]), ideals)
        if self.simple:
            sure = pairs.surely_below(below)
            kept = np.sort(np.append(np.flatnonzero(~sure), self.dominance.worth_keeping(pairs, np.flatnonzero(sure))))
            ideals, pairs = ideals[kept], pairs.only(kept)
        layer = _unreached(ideals)
        first = 0
        for previous, kind in moves:
            self._extend(layer, previous.best, pairs, first, kind, below)
            first += len(previous.best)
        reached = np.flatnonzero(layer.best < below)
        reached = reached[self._bearable(pairs, reached, mine, rest, below)]
        kept = self.dominance.worth_keeping(pairs, reached) if len(reached) else reached
        return _only(layer, kept) if len(kept) else None

    def _candidates(
        self, moves: list[tuple[Layer, int]], mine: np.ndarray, rest: np.ndarray, below: float, limit: int
    ) -> np.ndarray:
        """The ideals that one more stage may reach, and that the remaining devices can complete."""
        start = np.concatenate([layer.ideals for layer, _ in moves])
        weight, slack = start @ self.ideals.weight, 1e-9 * self.ideals.total
        span = max(self.ideals.pace[kind] for _, kind in moves) * below + slack
        low = max(weight.min(), self.ideals.left_for(_listed(rest), below)[-1]) - slack
        high = min(weight.max() + span, self.ideals.done_by(_listed(mine), below)[-1] + slack)
        return self.ideals.within(low, high, start, span, limit)

    def _capacity(self, devices: np.ndarray, below: float) -> float:
        """The most weight that the devices can do within `below` each."""
        return float((devices[devices > 0] * self.ideals.pace[devices > 0]).sum() * below)

    def _bearable(
        self, pairs: IdealPairs, reached: np.ndarray, mine: np.ndarray, rest: np.ndarray, below: float
    ) -> np.ndarray:
        """Whether the devices on either side of each ideal have time to transfer the values open there."""
        weight = (pairs.done * self.ideals.weight).sum() + pairs.after[reached] @ self.ideals.weight[pairs.active]
        cost = pairs.open_cost(pairs.count_after[reached])
        fine = np.ones(len(weight), dtype=bool)
        for devices, work in ((mine, weight), (rest, self.ideals.total - weight)):
            if not devices.any():
                continue
            if (devices[~self.pays] > 0).any():
                continue
            slowest = self.ideals.pace[devices > 0].min()
            budget = self._capacity(devices, below) * (1 + 1e-9)
            if self.model.overlap:
                fine &= cost <= devices.sum() * below * (1 + 1e-9)
            elif np.isfinite(budget):
                fine &= work + slowest * cost <= budget
        return fine

    def _extend(self, layer: Layer, best: np.ndarray, pairs: IdealPairs, first: int, kind: int, below: float) -> None:
        """Take over every better step from the previous layer, whose ideals are numbered from `first` in the pairs."""
        step = max(1, PAIRS_AT_ONCE // len(layer.best))
        for start in range(0, len(best), step):
            block = slice(start, min(start + step, len(best)))
            loads = pairs.loads(kind, slice(first + block.start, first + block.stop))
            offers = np.maximum(best[block, None], loads)
            at = offers.argmin(axis=0)
            offer = offers[at, np.arange(offers.shape[1])]
            better = offer < np.minimum(layer.best, below)
            layer.best[better] = offer[better]
            layer.last_class[better] = kind
            layer.before[better] = at[better] + start

    def _trace(self, layers: dict[Used, Layer], used: Used) -> Iterator[tuple[int, np.ndarray]]:
        """The stages, the last one first."""
        at = int(np.flatnonzero(layers[used].ideals.all(axis=1))[0])
        while used != self._none():
            layer = layers[used]
            kind, start = int(layer.last_class[at]), int(layer.before[at])
            used = next(before for before, which in self._moves(used) if which == kind)
            yield kind, layer.ideals[at] & ~layers[used].ideals[start]
            at = start


def _listed(devices: np.ndarray) -> np.ndarray:
    """The class of each device, from the number of those of each class."""
    return np.repeat(np.arange(len(devices)), devices)


def _unreached(ideals: np.ndarray) -> Layer:
    n = len(ideals)
    return Layer(ideals, np.full(n, np.inf), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))


def _only(layer: Layer, kept: np.ndarray) -> Layer:
    return Layer(layer.ideals[kept], layer.best[kept], layer.last_class[kept], layer.before[kept])
