"""A recording in which what a model keeps in attributes is state, as far as an export can follow it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ir.analysis.dead_code import without_unread
from ir.capture.export.example import Example
from ir.capture.export.recording import Recording
from ir.capture.fallbacks.ways import noted
from ir.capture.unregistered_state.as_buffers import as_attributes, as_buffers
from ir.capture.unregistered_state.observing import Observed, unread
from ir.capture.unregistered_state.places import Place
from ir.capture.warn import warn
from ir.errors import CaptureError
from ir.text.names import listed_names


def with_states(
    example: Example, observed: Observed, soft: bool, record: Callable[[Example, bool, Sequence[Any] | None], Recording]
) -> Recording:
    """A recording, by `record(example, soft, returned)`, of a model that was run before; its attributes are states.

    Where they cannot all be states, as one whose shape follows a size that may change, those that no call reads are
    none; else none is.
    """
    if observed.unseen:
        recording = record(example, soft, None)
        return noted(recording, *_unseen(recording.filled, observed.unseen))
    if observed.restless:
        warn(
            "forward returns something else when it is called again with the same inputs: it keeps something outside "
            "of its modules, as in an iterator, or draws numbers that are not torch's; stages return what one call did"
        )
        observed = replace(observed, first=None)
    if observed.states or observed.assigned:
        with suppress(CaptureError):
            return _with_all_but((), example, observed, record)
        if dropped := unread(example, observed):
            with suppress(CaptureError):
                return _with_all_but(dropped, example, observed, record)
    frozen = (*map(str, observed.states), *observed.frozen)  # without states an error names what else is wrong
    return replace(record(example, soft, observed.first), frozen=frozen)


def _with_all_but(dropped: Collection[Place], example: Example, observed: Observed, record: Any) -> Recording:
    """A recording with the states without those in `dropped`.  Raises CaptureError where one cannot be state."""
    states = {place: value for place, value in observed.states.items() if place not in dropped}
    buffers = [place for place in dropped if place not in observed.states]
    with as_attributes(example.model, buffers), as_buffers(example.model, states) as names:
        recording = record(example, False, observed.first)
    kept = [names[constant.fqn] for constant in recording.graph.constants if constant.fqn in names]
    frozen = (*observed.frozen, *kept, *map(str, dropped))
    return replace(recording, graph=without_unread(recording.graph, names), frozen=frozen)


def _unseen(filled: Sequence[str], reason: str) -> Iterator[str]:
    """A note on attributes that the first call of a model fills, where no second call was looked at."""
    if filled:
        yield f"the first call sets {listed_names(filled, 1)}, whether later calls read it was not looked at: {reason}"
