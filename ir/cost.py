"""Costs of nodes on any machine, their times on a device, and the loads that add up from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import sympy
import torch

from ir.machine.cluster import Device, Unit
from ir.sizes import Dim


class Arithmetic(NamedTuple):
    """The functional unit and operand dtype of the flops; a device has one rate per pair."""

    unit: Unit = "product"
    dtype: torch.dtype = torch.float32  # of the operands


@dataclass(frozen=True)
class Cost:
    """The work of a node on any machine, over the graph's symbols.

    `flops` are those of contractions (matrix products, convolutions, attention), two a multiply-add, as
    torch.utils.flop_counter counts them.  `bytes` is the traffic to and from memory, which bounds most other
    nodes.  `launches` is the number of kernels started.  A sum has the `arithmetic` of its first term with flops.
    `elements` is the size of the largest tensor if shapes or dtypes differ, so that no kernel streams through them.
    """

    flops: Dim
    bytes: Dim
    launches: int = 1
    arithmetic: Arithmetic = Arithmetic()
    elements: Dim = 0

    def __add__(self, other: Cost) -> Cost:
        arithmetic = other.arithmetic if self.flops == 0 else self.arithmetic
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.launches + other.launches,
            arithmetic,
            self.elements + other.elements,
        )


class Time(NamedTuple):
    """Seconds of a device, and of the host that launches its kernels meanwhile."""

    device: float
    host: float = 0.0

    def __add__(self, other: Time) -> Time:  # type: ignore[override]
        return Time(self.device + other.device, self.host + other.host)

    def __mul__(self, share: float) -> Time:  # type: ignore[override]
        return Time(self.device * share, self.host * share)


@dataclass(frozen=True)
class Measured:
    """The measured time of a node on a device, at the sizes of the example inputs."""

    device: Device  # its kind: without its name and memory
    cost: Cost  # of the node, in plain numbers
    time: Time


@dataclass(frozen=True)
class BetterCut:
    """Sizes for which another cut is better, and by how much: a share of the value of that cut."""

    sizes: Mapping[sympy.Symbol, int]
    gain: float


Binds: TypeAlias = Literal["compute", "memory", "link"]


@dataclass(frozen=True)
class Split:
    """The quality of a choice of stages, in seconds of the objective: no other choice beats `lower_bound`."""

    objective: str = ""  # the name of an Objective of the partitioners; empty for an uncut graph
    in_flight: int = 1  # microbatches whose activations a stage holds
    value: float = 0.0
    quantity: str = "bottleneck"  # the name of the value, as the objective has it
    best: float = 0.0  # of the best cut that was found; a plainer one may be chosen
    best_bytes: float = 0.0  # that the best cut sends
    place: str = ""  # where the stages part: "between layers"
    lower_bound: float = 0.0
    binds: Binds = "compute"  # what keeps it from being better
    loads: tuple[float, ...] = ()  # seconds for which a batch keeps each device busy
    good_for: Mapping[sympy.Symbol, tuple[int, int]] = field(default_factory=dict)  # set by check-sizes
    close: float = 0.0  # good: how far the value is above the best one there, at most, as a share; set by check-sizes
    better: tuple[BetterCut, ...] = ()  # where another cut is; set by check-sizes

    @property
    def above(self) -> float:
        """The excess of the value over that of the best cut that was found, as a share of that."""
        return self.value / self.best - 1 if self.best else 0.0

    @property
    def proven(self) -> bool:
        """Whether no cut is better than the best that was found, but for rounding."""
        return self.best <= self.lower_bound * (1 + 1e-5)

    @property
    def gap(self) -> float:
        """The most that the value may be above the best one, as a share of the value."""
        return 1 - self.lower_bound / self.value if self.value else 0.0


FREE = Cost(0, 0, 0)


UNKNOWN = Cost(sympy.nan, sympy.nan)  # poisons every sum it enters
