"""Plans of one model for several machines, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ir.cost import Binds
from ir.numbers.summary import BOTTLENECK, Summary
from ir.text.table import Rows, html_table, text_table
from ir.text.units import format_bytes, format_count, format_seconds

Counted: TypeAlias = Literal["tokens", "samples"]

BINDS: dict[Binds, str] = {"compute": "compute", "memory": "memory", "link": "transfers"}
"""What keeps a plan from being faster, in words."""


@dataclass(frozen=True)
class DeviceLoad:
    """A device's seconds for one batch, and its bytes."""

    device: str
    compute_seconds: float
    transfer_seconds: float  # to receive and to send
    held_bytes: int  # weights, and activations at their peak
    memory_bytes: int | None  # None if unlimited

    @property
    def seconds(self) -> float:
        return self.compute_seconds + self.transfer_seconds


@dataclass(frozen=True)
class Planned:
    """A machine, and the plan for it."""

    machine: str  # "h100x4"
    summary: Summary
    loads: tuple[DeviceLoad, ...]
    per_second: float  # tokens or samples, in a stream of batches

    @property
    def fullest(self) -> DeviceLoad:
        """The device with the least room left, by share."""
        return max(self.loads, key=lambda load: load.held_bytes / (load.memory_bytes or float("inf")))


@dataclass(frozen=True)
class Refused:
    """A machine for which there is no plan."""

    machine: str
    reason: str


@dataclass(frozen=True, repr=False)
class Comparison:
    """Plans of a model for several machines."""

    model: str
    counted: Counted
    rows: tuple[Planned | Refused, ...]
    notes: tuple[str, ...] = ()  # on the model and its plans

    def planned(self) -> list[Planned]:
        """The machines with a plan."""
        return [row for row in self.rows if isinstance(row, Planned)]

    @property
    def best(self) -> float:
        """The most tokens or samples a second of any of the machines."""
        return max((row.per_second for row in self.planned()), default=0.0)

    @property
    def titles(self) -> tuple[str, ...]:
        return ("machine", "binds", *self.numbers)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The titles of the columns that hold numbers, which come last."""
        quantity = next((row.summary.quantity for row in self.planned()), BOTTLENECK)
        return (quantity, "balance", "cuts", "memory", f"{self.counted}/s")

    def cells(self) -> Rows:
        """A row of the table for each machine."""
        return [_cells(row, len(self.numbers)) for row in self.rows]

    def reasons(self) -> tuple[str, ...]:
        """A line for each machine without a plan."""
        return tuple(f"{row.machine}: {row.reason}" for row in self.rows if isinstance(row, Refused))

    def __repr__(self) -> str:
        return "\n".join((text_table(self.titles, self.cells()), *self.reasons()))

    def _repr_html_(self) -> str:
        return html_table(self.titles, self.cells())


def _cells(row: Planned | Refused, numbers: int) -> tuple[str, ...]:
    match row:
        case Refused():
            return (row.machine, "no plan", *[""] * numbers)
        case Planned():
            summary = row.summary
            return (
                row.machine,
                BINDS[summary.binds],
                format_seconds(summary.measures[summary.quantity]),
                f"{summary.balance:.2f}",
                format_bytes(summary.cut_bytes),
                _memory(row.fullest),
                format_count(row.per_second),
            )


def _memory(fullest: DeviceLoad) -> str:
    """The bytes that a device holds, and their share of what it has."""
    held = format_bytes(fullest.held_bytes)
    return f"{held} {fullest.held_bytes / fullest.memory_bytes:.0%}" if fullest.memory_bytes else held
