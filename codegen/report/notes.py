"""Notes of the compiler for the report: passes, stage sources, seconds of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ir.graph import Node


@dataclass(frozen=True)
class PassNote:
    """A pass that ran."""

    name: str
    seconds: float
    changed: str  # in a few words


@dataclass(frozen=True)
class Notes:
    """The passes that led to a plan, and the predicted seconds of each of its nodes."""

    passes: tuple[PassNote, ...] = ()
    seconds: Mapping[Node, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageSource:
    """A generated file, and the line on which it runs each node of the stage's graph."""

    file: str
    source: str
    lines: Mapping[Node, int] = field(default_factory=dict)
