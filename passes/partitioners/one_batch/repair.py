"""Splits of an easier problem made to fit: moved nodes leave the devices whose memory is too small for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.partitioners.one_batch.flow import ProgramPaths
from passes.partitioners.problem.model import Problem
from passes.partitioners.search.first_cut import Cut, valued


def made_to_fit(problem: Problem, paths: ProgramPaths, moved: np.ndarray, stages: Sequence[int]) -> Cut | None:
    """The cut with `stages[node]`, or one near it whose stages hold fewer moved nodes; None if none was found.

    From a stage too large for its device, moved nodes that none in the stage reads go to a device that runs node by
    node, the largest first.
    """
    stages = list(stages)
    alone = [number for number, device in enumerate(problem.devices) if device.node_by_node]
    if not alone or not moved.any():
        return valued(problem, stages)
    held = np.bincount(stages, _bytes(problem), len(problem.devices))
    for number, device in enumerate(problem.devices):
        while number != alone[0] and held[number] > device.memory:
            here = [node for node in np.flatnonzero(moved).tolist() if stages[node] == number]
            last = [node for node in here if all(stages[other] != number for other in paths.after[node])]
            if not last:
                return None
            node = max(last, key=lambda node: problem.nodes[node].bytes)
            stages[node] = alone[0]
            held[number] -= problem.nodes[node].bytes
    return valued(problem, stages)


def _bytes(problem: Problem) -> np.ndarray:
    """[nodes] bytes, with those of the weights that each is the first to read."""
    held = np.array([node.bytes for node in problem.nodes])
    for weight in problem.weights:
        held[list(weight.readers[:1])] += weight.bytes
    return held
