"""A plan in numbers, as the table, the report and the manifest show it."""

from __future__ import annotations

from dataclasses import dataclass

from ir.cost import Binds

BOTTLENECK = "bottleneck"


@dataclass(frozen=True)
class CallSummary:
    """Calls of some sizes, out of those for which the numbers of a plan hold."""

    sizes: dict[str, int]
    share: float  # of all calls
    bottleneck_seconds: float  # load of the busiest device for such a call


@dataclass(frozen=True)
class BetterFor:
    """Sizes for which another cut is better, and by how much: a share of the bottleneck of that cut."""

    sizes: dict[str, int]
    gain: float


@dataclass(frozen=True)
class Edge:
    """A value that a stage receives or sends."""

    name: str
    type: str
    bytes: int  # of a call on average
    stages: tuple[int, ...]  # at the other end; none for an input of the model
    is_output: bool = False  # of the model


@dataclass(frozen=True)
class StageSummary:
    """A stage in numbers.  Seconds are those of a call on average, bytes of activations those of the largest."""

    stage: int
    device: str
    parameters: int
    weight_bytes: int  # with the cache
    activation_bytes: int  # at their peak
    memory_bytes: int | None  # of the device; None if unlimited
    compute_seconds: float
    receive_seconds: float
    send_seconds: float
    share: float  # of the computation of all stages
    receives: tuple[Edge, ...]
    sends: tuple[Edge, ...]
    cache_bytes: int = 0  # of the pools of a decoder


@dataclass(frozen=True)
class TextsAtOnce:
    """The decoding of so many texts at once, each half as long as it may be, as it is predicted."""

    texts: int
    tokens_per_second: float  # of all texts together
    token_seconds: float  # from one token of a text to its next


@dataclass(frozen=True)
class Summary:
    """A plan in numbers, for calls of the sizes of `calls`."""

    model: str
    calls: tuple[CallSummary, ...]
    made_up: bool  # whether nobody chose these sizes
    stages: tuple[StageSummary, ...]
    bottleneck_seconds: float  # load of the busiest device, copies of cheap nodes included
    objective: str  # what the cut was made for: "throughput", "latency"
    quantity: str  # what it made small for that: "bottleneck", "latency"
    value_seconds: float  # of that quantity, as the search for the cut had it
    lower_bound_seconds: float  # no cut has a smaller one
    gap: float  # how far this cut may be from the best, relative to its own value
    binds: Binds  # what keeps it from being better
    above: float  # how far its value is above that of the best cut that was found, relative to the latter
    proven: bool  # that no cut is better than that best one
    place: str  # where its stages part: "between layers"
    best_cut_bytes: int  # that the best cut sends for one batch
    good_for: dict[str, tuple[int, int]]  # sizes over which the cut is as close to the best
    close: float  # as this share of its value
    better: tuple[BetterFor, ...]  # sizes for which another cut is better by more than the slack
    balance: float  # busiest device over mean
    cut_bytes: int  # over all cuts, for one batch
    notes: tuple[str, ...] = ()  # what was done to the model to make it compile
    decoding: tuple[TextsAtOnce, ...] = ()  # of a decoder

    @property
    def measures(self) -> dict[str, float]:
        """The seconds by which the plan is judged: the quantity of its objective, and the bottleneck."""
        return {self.quantity: self.value_seconds, BOTTLENECK: self.bottleneck_seconds}
