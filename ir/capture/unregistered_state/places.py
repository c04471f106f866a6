"""Everything that hangs on a model's modules: attributes, and what lists, dicts and objects in them hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ir.capture.unregistered_state.held import attributes_in, is_array, is_leaf, is_object, items_in
from ir.capture.unregistered_state.surroundings import HOOKS, MISSING

OF_EVERY_MODULE = set(vars(nn.Module())) - {"training"}


@dataclass(frozen=True)
class Place:
    """A place where a model holds a value: a module, and the steps from it, each an attribute or an index."""

    module: str  # dotted path
    steps: tuple[tuple[str, Any], ...]  # (".", "cache"), ("[", 0); ("buffer", "m") for one that forward registers

    def __str__(self) -> str:
        text = "".join(f"[{key!r}]" if kind == "[" else f".{key}" for kind, key in self.steps)
        return f"{self.module}{text}".lstrip(".")

    @property
    def around(self) -> Iterator[Place]:
        """The places that this one is inside of."""
        return (Place(self.module, self.steps[:count]) for count in range(1, len(self.steps)))

    def within(self, other: Place) -> bool:
        """Whether this is inside what `other` holds, or `other` itself."""
        return self.module == other.module and self.steps[: len(other.steps)] == other.steps

    def get(self, model: nn.Module) -> Any:
        """The value that a model holds here; `MISSING` where there is no such place."""
        try:
            return self._owner(model)[self.steps[-1][1]]
        except (KeyError, IndexError, TypeError, AttributeError):
            return MISSING

    def put(self, model: nn.Module, value: Any) -> None:
        """Hold a value here; `MISSING` removes what is there, and in a list all after it.

        Raises LookupError or TypeError where there is no such place for a value.
        """
        if value is MISSING and self.get(model) is MISSING:
            return
        owner: Any = self._owner(model)
        key = self.steps[-1][1]
        if isinstance(owner, tuple) and value is not MISSING:
            items = [*owner[:key], value, *owner[key + 1 :]]
            newly_held = type(owner)(*items) if hasattr(owner, "_fields") else tuple(items)
            Place(self.module, self.steps[:-1]).put(model, newly_held)
        elif value is not MISSING:
            owner[key] = value  # type: ignore[index]
        elif isinstance(owner, list):
            del owner[key:]
        else:
            owner.pop(key, None)  # type: ignore[union-attr]

    def _owner(self, model: nn.Module) -> Any:
        module = model.get_submodule(self.module)
        kind, name = self.steps[0]
        owner: Any = module._buffers if kind == "buffer" or name in module._buffers else vars(module)
        for before, (kind, _) in zip(self.steps[:-1], self.steps[1:], strict=True):
            owner = owner[before[1]]
            owner = attributes_in(owner) if kind == "." else owner
        return owner


@dataclass(frozen=True)
class HeldContainer:
    """A list, dict, set or object, without what it holds."""

    kind: str
    length: int


def leaves(model: nn.Module, registered: Collection[str] | None = None) -> dict[Place, Any]:
    """The values in all places of a model, by place; a HeldContainer stands before what it holds.

    Of buffers those that are None, and where `registered` names buffers, all others than these.
    """
    found: dict[Place, Any] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, value in _attributes(module):
            found |= places_in(Place(path, ((".", name),)), value, seen)
        for name, value in module._buffers.items():
            if value is None:
                found[Place(path, ((".", name),))] = value
            elif registered is not None and f"{path}.{name}".lstrip(".") not in registered:
                found[Place(path, (("buffer", name),))] = value
    return found


def changed(before: Mapping[Place, Any], after: Mapping[Place, Any], own: Iterable[nn.Parameter] = ()) -> list[str]:
    """The names of places that hold something else, while torch traces; new and filled ones a first run prepares.

    `own`: the model's parameters, for which torch.export has others.  A place that held one of those before and holds
    one of these now, as in the list of weights of an LSTM, has only followed.
    """
    known = {id(parameter) for parameter in own}
    held = ((place, value, after[place]) for place, value in before.items() if value is not None and place in after)
    other = ((place, was, now) for place, was, now in held if not _same_traced(was, now))
    return [str(p) for p, was, now in other if not (_is_other_parameter(was, known) and id(now) in known)]


def _is_other_parameter(value: Any, known: Collection[int]) -> bool:
    return isinstance(value, nn.Parameter) and id(value) not in known


def newly_held(before: Mapping[Place, Any], after: Mapping[Place, Any]) -> list[str]:
    """The names of places that held nothing before and do now, without those inside of others."""
    held = {place for place, value in before.items() if value is not None}
    new = {place: None for place, value in after.items() if value is not None and place not in held}
    known = held | new.keys()
    return [str(place) for place in new if known.isdisjoint(place.around)]


def _same_traced(a: Any, b: Any) -> bool:
    plain = not isinstance(a, torch.Tensor) and not is_array(a) and type(a) is type(b)
    return a is b or (plain and bool(a == b))


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    own = ((name, value) for name, value in vars(module).items() if name not in OF_EVERY_MODULE)
    yield from own
    yield from ((name, vars(module)[name]) for name in HOOKS if name in vars(module))


def places_in(place: Place, value: Any, seen: set[int]) -> Iterator[tuple[Place, Any]]:
    """The values that a value holds, by place; objects in `seen` are passed over."""
    if is_leaf(value):
        yield place, value
        return
    items = items_in(value)
    if items is None or id(value) in seen:
        return
    seen.add(id(value))
    kind = "." if is_object(value) else "["
    yield place, HeldContainer(type(value).__qualname__, len(items))
    for key, item in items.items():
        yield from places_in(Place(place.module, (*place.steps, (kind, key))), item, seen)
