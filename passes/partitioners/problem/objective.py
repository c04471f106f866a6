"""The objective of a cut."""

from __future__ import annotations

from enum import Enum


class Objective(str, Enum):
    """The quantity, in seconds, that a split should make small.

    Four files know each objective: this one, `evaluation` (its value), `search/first_cut` (its dynamic program and
    its first bound) and `proof/assignment` (its integer program).
    """

    throughput = "throughput"  # the load of the busiest device, which bounds a stream of batches
    latency = "latency"  # the time of one batch through all stages
