"""The objectives of a cut."""

from __future__ import annotations

from enum import Enum


class Objective(str, Enum):
    """The quantity, in seconds, that a split should make small.

    A member has its name as an option, the name of that quantity, whether the quantity is the largest load of any
    device, and what a cut of the least is, for the help.  What is particular to an objective stands here, in
    `evaluation` (its value), `search/first_cut` (its dynamic program and its first bound) and `proof/whole/assignment`
    (its integer program).
    """

    quantity: str
    of_loads: bool  # the searches over loads hold for it: the relaxation, its proofs, and plainer cuts nearly as good
    help: str

    def __new__(cls, name: str, quantity: str, of_loads: bool, help: str) -> Objective:
        member = str.__new__(cls, name)
        member._value_ = name
        member.quantity, member.of_loads, member.help = quantity, of_loads, help
        return member

    # the load of the busiest device, which bounds a stream of batches
    throughput = "throughput", "bottleneck", True, "the fastest stream of batches"
    # the time of one batch through all stages
    latency = "latency", "latency", False, "the fastest single batch"


DEFAULT_OBJECTIVE = Objective.throughput
