"""The values that cross from device to device in a split, and the modules that it parts: the less, the plainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from passes.partitioners.problem.copies import inline
from passes.partitioners.problem.model import Problem


class Crossing(NamedTuple):
    """Traffic between the devices of a split.  Of two splits the one with the lesser crossing is plainer."""

    values: int  # each counted once for each device that receives it
    parted: int  # modules, each counted once for each device with nodes of it beyond the first
    bytes: float  # received, of all devices


def crossing(problem: Problem, stage_of: Mapping[int, int]) -> Crossing:
    """The traffic of a split; `stage_of` maps the id of each node to its stage.  Copies cross nowhere."""
    problem = inline(problem)
    device = [problem.device_of(stage_of[name]) for name in problem.names]
    values, size = 0, 0.0
    for value in problem.values:
        takers = len({device[node] for node in value.consumers} - {device[value.producer]})
        values += takers
        size += takers * value.bytes
    homes = (len({device[node] for node in module}) for module in problem.modules)
    return Crossing(values, sum(count - 1 for count in homes if count), size)
