"""Changes that forward makes to a model's modules, found by running the example, and other values, call after call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ir.capture.checks.values import other_values
from ir.capture.export.example import Example
from ir.capture.memory.places import MISSING, HeldContainer, Place, as_they_were, leaves
from ir.objects.signature import call, flatten
from ir.text.units import format_bytes

COPIED_AT_MOST = 1 << 30  # bytes of weights that are copied for the runs, at most


@dataclass(frozen=True)
class Observed:
    """What forward changes: tensors that stages can keep, with their first values, and all else."""

    states: Mapping[Place, torch.Tensor] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()  # the names of what stays as it was at first
    unseen: str = ""  # why the model was not run; empty where it was


class _NotRun(Exception):
    """A model cannot be copied, or run by itself."""


def observe(example: Example) -> Observed:
    """What a model changes that no buffer or parameter holds.

    The model runs as a copy on the example, on it again, and on other values if it takes them.  What differs afterwards
    matters if results or other changes depend on it, or if it goes on changing.
    """
    tensors = [*example.model.parameters(), *example.model.buffers()]
    if any(t.is_meta for t in tensors):
        return Observed(unseen="its weights are not in memory")
    if sum(t.nbytes for t in tensors) > COPIED_AT_MOST:
        return Observed(unseen=f"its weights take more than {format_bytes(COPIED_AT_MOST)}")
    try:
        with torch.no_grad(), torch.random.fork_rng([]), as_they_were(example.model):
            return _observed(example)
    except _NotRun as e:
        return Observed(unseen=str(e))


@dataclass(frozen=True)
class _Run:
    """What a call returned, and what the model held afterwards."""

    returned: list[Any]
    held: Mapping[Place, Any]

    def same(self, other: _Run) -> bool:
        """Whether two calls returned the same."""
        returned, others = self.returned, other.returned
        return len(returned) == len(others) and all(map(_same, returned, others))


def _observed(example: Example) -> Observed:
    first = _held(example.model)
    again = [example.tensors, example.tensors]
    if not (changed := _differences(first, [run.held for run in _runs(example, again)])):
        return Observed()
    calls, runs = _with_other_values(example, again)
    [alone] = _runs(example, calls[-1:])
    lasting = {p for p in changed if not _same(runs[0].held.get(p, MISSING), runs[1].held.get(p, MISSING))}
    lasting |= set(_differences(runs[-1].held, [alone.held])) | {p for p in changed if _is_tensor(first.get(p))}
    others = [p for p in changed if p not in lasting]
    if others and not _alike(runs, _runs(example, calls, reset=others), lasting):
        lasting |= set(others)
    states = {p: t for p in _ordered(lasting) if (t := _first_value(p, first, runs)) is not None}
    made = {p: t for p, t in states.items() if not _is_tensor(first.get(p))}
    if made and not _may_begin_with(made, example, calls, runs, lasting):
        states = {p: t for p, t in states.items() if p not in made}
    kept = [p for p in _ordered(lasting) if p not in states]
    return Observed(states, _names(p for p in kept if not _is_made_of(p, changed, states)))


def _with_other_values(
    example: Example, calls: list[Sequence[torch.Tensor]]
) -> tuple[Sequence[Sequence[torch.Tensor]], list[_Run]]:
    """The calls and one of other values, and their runs; without that one where the model does not take it."""
    torch.manual_seed(1)
    more = [*calls, [other_values(t) for t in example.tensors]]
    try:
        return more, _runs(example, more)
    except _NotRun:
        return calls, _runs(example, calls)


def _may_begin_with(
    made: Mapping[Place, torch.Tensor],
    example: Example,
    calls: Sequence[Sequence[torch.Tensor]],
    runs: Sequence[_Run],
    lasting: Collection[Place],
) -> bool:
    """Whether a model that holds these tensors from the start returns and leaves what it did in `runs`."""
    try:
        return _alike(runs, _runs(example, calls, given=made), lasting)
    except (LookupError, TypeError, _NotRun):  # they lie in what a first run makes, or it does not take them
        return False


def _is_made_of(place: Place, changed: Collection[Place], states: Collection[Place]) -> bool:
    """Whether a container changes in that it holds states alone."""
    inside = [p for p in changed if p.within(place) and p != place]
    return bool(inside) and all(p in states for p in inside)


def _runs(
    example: Example,
    calls: Sequence[Sequence[torch.Tensor]],
    reset: Collection[Place] = (),
    given: Mapping[Place, torch.Tensor] | None = None,
) -> list[_Run]:
    """Calls in a row of a copy of the model that holds `given` at first; `reset` is put back after each.

    Raises _NotRun where the model raises.
    """
    model, runs = _copied(example.model), []
    for place, value in (given or {}).items():
        place.put(model, value.clone())
    for tensors in calls:
        torch.manual_seed(0)
        arguments = deepcopy(example.arguments.fill([t.clone() for t in tensors]))
        try:
            returned = deepcopy(list(map(_detached, flatten(call(model, example.parameters, arguments))[0])))
        except Exception as e:  # the code of a model may raise anything, and return what cannot be copied
            raise _NotRun(f"run by itself it raises {type(e).__name__}: {e}".partition("\n")[0]) from e
        runs.append(_Run(returned, _held(model)))
        fresh = _copied(example.model) if reset else model
        for place in _ordered(reset):
            place.put(model, place.get(fresh))
    return runs


def _copied(model: nn.Module) -> nn.Module:
    try:
        return deepcopy(model)
    except Exception as e:  # what a model holds may raise anything when it is copied
        raise _NotRun(f"it cannot be copied ({type(e).__name__}: {e})".partition("\n")[0]) from e


def _held(model: nn.Module) -> dict[Place, Any]:
    return {p: value.detach().clone() if _is_tensor(value) else value for p, value in leaves(model).items()}


def _differences(first: Mapping[Place, Any], later: Iterable[Mapping[Place, Any]]) -> list[Place]:
    """The places that hold something else later."""
    places = {p for held in later for p in {*first, *held} if not _same(first.get(p, MISSING), held.get(p, MISSING))}
    return _ordered(places)


def _alike(runs: Sequence[_Run], others: Sequence[_Run], places: Collection[Place]) -> bool:
    """Whether calls return the same and leave the same in `places`."""
    return all(
        a.same(b) and all(_same(a.held.get(p, MISSING), b.held.get(p, MISSING)) for p in places)
        for a, b in zip(runs, others, strict=True)
    )


def _first_value(place: Place, first: Mapping[Place, Any], runs: Sequence[_Run]) -> torch.Tensor | None:
    """What a state holds at first: its tensor, or zeros where there is none yet; None if its type changes."""
    before, later = first.get(place, MISSING), [run.held.get(place, MISSING) for run in runs]
    if before is None or before is MISSING:
        before = torch.zeros_like(later[0]) if _is_tensor(later[0]) else None
    if not isinstance(before, torch.Tensor) or not all(_is_tensor(t) for t in later):
        return None
    kind = before.shape, before.dtype
    return before if all((t.shape, t.dtype) == kind for t in later) else None


def _names(places: Iterable[Place]) -> tuple[str, ...]:
    """The names of places, without those inside of others."""
    outer: list[Place] = []
    for place in places:
        if not any(place.within(other) for other in outer):
            outer.append(place)
    return tuple(map(str, outer))


def _ordered(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda p: (p.module, [str(step) for step in p.steps]))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    if a is b:
        return True
    plain = (bool, int, float, complex, str, bytes, HeldContainer)
    return type(a) is type(b) and (not isinstance(a, plain) or a == b or (a != a and b != b))
