"""Seats: the devices in their places along a pipeline, and the cost of a stage there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.parts import Link
from passes.partitioners.search.sweep import Intervals


@dataclass(frozen=True)
class Seat:
    """A device in its place: it receives over one link and sends over another.

    Where links differ, a value from or for a more distant device is priced as if it were the neighbour's. This
    guides the search only; cuts are evaluated with the true links.
    """

    kind: int
    memory: float
    receives: Link
    sends: Link
    free_transfers: bool

    def transfers(self, stages: Intervals) -> tuple[np.ndarray, np.ndarray]:
        """Seconds to receive and to send of each of the stages."""
        if self.free_transfers:
            nothing = np.zeros_like(stages.memory)
            return nothing, nothing
        return _seconds(self.receives, stages.received), _seconds(self.sends, stages.sent)

    def load(self, stages: Intervals, overlap: bool) -> np.ndarray:
        """Seconds of load of each of the stages, inf if it does not fit or run."""
        if (self, overlap) not in stages.loads:
            stages.loads[self, overlap] = self._load(stages, overlap)
        return stages.loads[self, overlap]

    def _load(self, stages: Intervals, overlap: bool) -> np.ndarray:
        receive, send = self.transfers(stages)
        compute = stages.compute[self.kind]
        load = np.maximum(compute, np.maximum(receive, send)) if overlap else compute + receive + send
        return load if self.memory == np.inf else np.where(stages.memory <= self.memory, load, np.inf)

    def delay(self, stages: Intervals) -> np.ndarray:
        """Seconds that each of the stages adds to the latency of a batch, inf if it does not fit or run."""
        receive, _ = self.transfers(stages)
        return np.where(stages.memory <= self.memory, stages.compute[self.kind] + receive, np.inf)


def _seconds(link: Link, amount: np.ndarray) -> np.ndarray:
    return link.latency * amount[0] + amount[1] / link.bandwidth


def seats(problem: Problem, devices: Sequence[int]) -> tuple[Seat, ...]:
    """The seats of a pipeline through `devices`, in this order."""
    found: list[Seat] = []
    for place, number in enumerate(devices):
        device = problem.devices[number]
        receives = problem.between(devices[max(place - 1, 0)], number) if place else problem.link
        sends = problem.between(number, devices[place + 1]) if place + 1 < len(devices) else problem.link
        found.append(Seat(device.kind, device.memory, receives, sends, device.free_transfers))
    return tuple(found)


def alike(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Classes of devices that are interchangeable: permuting them changes no cost."""
    classes: list[list[int]] = []
    for number in range(len(problem.devices)):
        home = next((members for members in classes if _interchangeable(problem, members[0], number)), None)
        if home is None:
            classes.append([number])
        else:
            home.append(number)
    return tuple(map(tuple, classes))


def _interchangeable(problem: Problem, a: int, b: int) -> bool:
    first, second = problem.devices[a], problem.devices[b]
    if replace(first, name="") != replace(second, name=""):
        return False
    if not problem.links:
        return True
    others = (x for x in range(len(problem.devices)) if x not in (a, b))
    return problem.between(a, b) == problem.between(b, a) and all(
        problem.between(a, x) == problem.between(b, x) and problem.between(x, a) == problem.between(x, b)
        for x in others
    )


def sequences(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Every order of the devices, up to devices that are alike (those in the order listed); the listed one first."""
    listed = tuple(range(len(problem.devices)))
    yield listed
    if problem.fixed_order:
        return
    for order in _arrangements(listed, alike(problem)):
        if order != listed:
            yield order


def _arrangements(places: tuple[int, ...], classes: tuple[tuple[int, ...], ...]) -> Iterator[tuple[int, ...]]:
    """All assignments of places to classes, each class in its listed order."""
    if len(classes) == 1:
        yield classes[0]
        return
    first = classes[0]
    for chosen in combinations(range(len(places)), len(first)):
        rest = tuple(p for p in range(len(places)) if p not in chosen)
        for others in _arrangements(rest, classes[1:]):
            order = dict(zip((*chosen, *rest), (*first, *others), strict=True))
            yield tuple(order[p] for p in range(len(places)))
