"""Changes that forward makes to a model's modules, found by running the example, and other values, call after call."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec

from ir.capture.checks.entries import with_turned_entries
from ir.capture.checks.values import other_values
from ir.capture.export.example import Example, slotted
from ir.capture.export.gradient_hooks import NAMES, gradient_hooks_seen
from ir.capture.unregistered_state.places import Place, leaves
from ir.capture.unregistered_state.restoring import COPIED_AT_MOST, as_they_were, put_back
from ir.capture.unregistered_state.snapshots import (
    copied_values,
    differences,
    held_around,
    is_near,
    is_same,
    ordered,
    outermost,
)
from ir.capture.unregistered_state.surroundings import MISSING, names_in_code
from ir.errors import in_one_line
from ir.objects.containers import keys_on_the_way
from ir.objects.signature import call, flatten
from ir.text.units import format_bytes


@dataclass(frozen=True)
class Observed:
    """Values that forward changes: tensors that stages can keep, with their first values, and all else."""

    states: Mapping[Place, torch.Tensor] = field(default_factory=dict)
    assigned: tuple[Place, ...] = ()  # buffers that forward exchanges for other tensors
    frozen: tuple[str, ...] = ()  # the names of what stays as it was at first
    unseen: str = ""  # why the model was not run; empty where it was
    first: tuple[Any, ...] | None = None  # what the first call returned
    seeds: bool = False  # whether forward seeds torch's random numbers
    hooks: tuple[str, ...] = ()  # notes on the hooks on gradients that forward registers
    rewinds: bool = False  # whether torch's random numbers go on after a call as if it had drawn none
    keys: tuple[tuple[Any, ...], ...] = ()  # on the way to each result
    ordered: tuple[str, ...] = ()  # arguments on the order of whose entries results depend
    restless: bool = False  # whether a second call returned something else, although nothing changed that is looked at


_SEED = 1_703_904_511  # that no forward would choose


class _NotRun(Exception):
    """A model cannot be run by itself."""


def observe(example: Example) -> Observed:
    """The values that a model changes and that no buffer or parameter holds.

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
            with gradient_hooks_seen():
                observed = _observed(example)
            return replace(observed, hooks=_hooks(example))
    except _NotRun as e:
        return Observed(unseen=str(e))


def _hooks(example: Example) -> tuple[str, ...]:
    """Notes on the hooks on gradients that forward registers where there are gradients."""
    notes: list[str] = []
    if not NAMES.isdisjoint(names_in_code(example.model)):
        with suppress(_NotRun), torch.enable_grad(), gradient_hooks_seen(notes.append):
            _runs(example, [example.tensors])
    return tuple(dict.fromkeys(notes))


@dataclass(frozen=True)
class _Run:
    """The result of a call, and the values that the model held afterwards."""

    returned: list[Any]
    keys: tuple[tuple[Any, ...], ...]  # on the way to each result
    held: Mapping[Place, Any]
    outside: Mapping[Place, Any]  # what variables outside of the modules hold
    registered: Mapping[str, torch.Tensor]  # the values of buffers and parameters
    assigned: tuple[Place, ...]  # buffers that are other tensors than before
    seed: int  # of torch's random numbers
    random: torch.Tensor  # their state

    @classmethod
    def after(cls, returned: list[Any], spec: TreeSpec, model: nn.Module, buffers: Mapping[str, torch.Tensor]) -> _Run:
        """A run that has just returned; `buffers` are those that the model had before."""
        held, outside = _held(model, buffers), held_around(model)
        now = _buffers(model)
        assigned = tuple(_place(name) for name, tensor in buffers.items() if now.get(name, tensor) is not tensor)
        seed, random = torch.initial_seed(), torch.get_rng_state()
        return cls(returned, keys_on_the_way(spec), held, outside, _values(model), assigned, seed, random)

    def same(self, other: _Run) -> bool:
        """Whether two calls returned the same."""
        returned, others = self.returned, other.returned
        return len(returned) == len(others) and all(map(is_same, returned, others))

    def near(self, other: _Run) -> bool:
        """Whether two calls returned the same but for rounding."""
        return len(self.returned) == len(other.returned) and all(map(is_near, self.returned, other.returned))


def _observed(example: Example) -> Observed:
    first, around = _held(example.model, _buffers(example.model)), held_around(example.model)
    again = [example.tensors, example.tensors]
    runs = _runs(example, again)
    settled = runs[0].near(runs[1])  # whether what a first call leaves around makes no difference to the next
    outside = outermost(differences(runs[0].outside if settled else around, [runs[1].outside]))
    changed = differences(first, [run.held for run in runs])
    torch.manual_seed(_SEED)
    seeds, rewinds = runs[0].seed != _SEED, torch.equal(runs[0].random, torch.get_rng_state())
    returned = tuple(runs[0].returned)
    seen = Observed(assigned=runs[0].assigned, frozen=outside, first=returned, seeds=seeds, rewinds=rewinds)
    seen = replace(seen, keys=runs[0].keys, ordered=tuple(_ordered(example, runs[0])))
    if changed:
        seen = _with_places(seen, example, first, changed)
    explained = seen.states or seen.frozen or _changes_registered(example.model, runs[0])
    return replace(seen, restless=not explained and not settled)


def _ordered(example: Example, run: _Run) -> Iterator[str]:
    """The arguments on the order of whose entries results depend, by what a call returned."""
    given = example.arguments.fill(list(example.tensors))
    for name, turned in with_turned_entries(given):
        leaves, spec = flatten(turned)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        try:
            [other] = _runs(replace(example, arguments=slotted(leaves, spec), tensors=tensors), [tensors])
        except _NotRun:
            yield name
            continue
        wanted, found = (dict(zip(r.keys, r.returned, strict=True)) for r in (run, other))
        if wanted.keys() != found.keys() or not all(is_near(wanted[key], found[key]) for key in wanted):
            yield name


def _with_places(seen: Observed, example: Example, first: Mapping[Place, Any], changed: Sequence[Place]) -> Observed:
    """The same observation, with the places that changed, as far as results or later changes depend on them."""
    calls, runs = _with_other_values(example, [example.tensors, example.tensors])
    [alone] = _runs(example, calls[-1:])
    lasting = {p for p in changed if not is_same(runs[0].held.get(p, MISSING), runs[1].held.get(p, MISSING))}
    lasting |= set(differences(runs[-1].held, [alone.held])) | {p for p in changed if _is_tensor(first.get(p))}
    others = [p for p in changed if p not in lasting]
    if others and not _alike(runs, _runs(example, calls, reset=others), lasting):
        lasting |= set(others)
    states = {p: t for p in ordered(lasting) if (t := _first_value(p, first, runs)) is not None}
    made = {p: t for p, t in states.items() if not _is_tensor(first.get(p))}
    if made and not _may_begin_with(made, example, calls, runs, lasting):
        states = {p: t for p, t in states.items() if p not in made}
    kept = [p for p in ordered(lasting) if p not in states]
    frozen = outermost(p for p in kept if not _is_made_of(p, changed, states))
    return replace(seen, states=states, frozen=(*frozen, *seen.frozen))


def unread(example: Example, observed: Observed) -> list[Place]:
    """The states, and the buffers that forward exchanges, on whose values at the start no later call depends."""
    with torch.no_grad(), torch.random.fork_rng([]), as_they_were(example.model):
        calls, runs = _with_other_values(example, [example.tensors, example.tensors])
        lasting = [*observed.states, *observed.assigned]

        def is_unread(place: Place) -> bool:
            try:
                others = _runs(example, calls, reset=[place])
            except (LookupError, TypeError, _NotRun):  # a later call needs it, or lacks what it lies in
                return False
            return _alike(runs, others, [p for p in lasting if p != place], place)

        return [place for place in lasting if is_unread(place)]


def _changes_registered(model: nn.Module, run: _Run) -> bool:
    """Whether a call changed buffers or parameters, or their number."""
    return not _same_values(_values(model), run.registered)


def _same_values(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(is_same(some[name], others[name]) for name in some)


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in (*model.named_buffers(), *model.named_parameters())}


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_buffers(remove_duplicate=False))


def _place(name: str) -> Place:
    """The place of a buffer."""
    path, _, own = name.rpartition(".")
    return Place(path, ((".", own),))


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
    runs = []
    with _apart(example.model) as model:
        buffers = _buffers(model)
        for place, value in (given or {}).items():
            place.put(model, value.clone())
        for tensors in calls:
            torch.manual_seed(_SEED)
            copies = {id(t): t.clone() for t in tensors}  # one that is given twice is one tensor
            arguments = deepcopy(example.arguments.fill([copies[id(t)] for t in tensors]))
            try:
                leaves, spec = flatten(call(model, example.parameters, arguments))
                returned = deepcopy(list(map(_detached, leaves)))
            except Exception as e:  # the code of a model may raise anything, and return what cannot be copied
                raise _NotRun(f"run by itself it raises {in_one_line(e)}") from e
            runs.append(_Run.after(returned, spec, model, buffers))
            if reset and (fresh := _copy(example.model)) is not None:
                for place in ordered(reset):
                    place.put(model, place.get(fresh))
    return runs


@contextmanager
def _apart(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of a model, or the model itself where it cannot be copied; all is put back as it was, around it, too."""
    copied = _copy(model)
    with put_back(model, own=copied is None):
        yield model if copied is None else copied


def _copy(model: nn.Module) -> nn.Module | None:
    """A copy of a model; None where it holds what cannot be copied, such as a generator."""
    try:
        return deepcopy(model)
    except Exception:  # what a model holds may raise anything when it is copied
        return None


def _held(model: nn.Module, registered: Collection[str]) -> dict[Place, Any]:
    return copied_values(leaves(model, registered))


def _alike(runs: Sequence[_Run], others: Sequence[_Run], places: Collection[Place], but: Place | None = None) -> bool:
    """Whether calls return the same and leave the same in `places`, parameters and buffers; `but` one buffer."""
    left = str(but)
    return all(
        a.same(b)
        and all(is_same(a.held.get(p, MISSING), b.held.get(p, MISSING)) for p in places)
        and _same_values(*({n: t for n, t in run.registered.items() if n != left} for run in (a, b)))
        for a, b in zip(runs, others, strict=True)
    )


def _first_value(place: Place, first: Mapping[Place, Any], runs: Sequence[_Run]) -> torch.Tensor | None:
    """The first value of a state: its tensor, or zeros where there is none yet; None if its type changes."""
    before, later = first.get(place, MISSING), [run.held.get(place, MISSING) for run in runs]
    if before is None or before is MISSING:
        before = torch.zeros_like(later[0]) if _is_tensor(later[0]) else None
    if not isinstance(before, torch.Tensor) or not all(_is_tensor(t) for t in later):
        return None
    kind = before.shape, before.dtype
    return before if all((t.shape, t.dtype) == kind for t in later) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
