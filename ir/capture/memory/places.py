"""Everything that hangs on a model's modules: attributes, and what lists, dicts and objects in them hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_OF_EVERY_MODULE = set(vars(nn.Module()))
_HOOKS = {name for name in _OF_EVERY_MODULE if "hooks" in name}
_NUMBERS = (bool, int, float, complex, str, bytes, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)
_FOREIGN = {"torch", "numpy", "threading", "logging", "concurrent", "weakref", "re", "functools"}


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


@dataclass(frozen=True)
class Place:
    """Where a model holds a value: a module, and the steps from it, each an attribute or an index."""

    module: str  # dotted path
    steps: tuple[tuple[str, Any], ...]  # (".", "cache"), ("[", 0)

    def __str__(self) -> str:
        text = "".join(f".{key}" if kind == "." else f"[{key!r}]" for kind, key in self.steps)
        return f"{self.module}{text}".lstrip(".")

    @property
    def around(self) -> Iterator[Place]:
        """The places that this one is inside of."""
        return (Place(self.module, self.steps[:count]) for count in range(1, len(self.steps)))

    def within(self, other: Place) -> bool:
        """Whether this is inside what `other` holds, or `other` itself."""
        return self.module == other.module and self.steps[: len(other.steps)] == other.steps

    def get(self, model: nn.Module) -> Any:
        """What a model holds here; `MISSING` where there is no such place."""
        try:
            return self._owner(model)[self.steps[-1][1]]
        except (KeyError, IndexError, TypeError, AttributeError):
            return MISSING

    def put(self, model: nn.Module, value: Any) -> None:
        """Hold a value here; `MISSING` removes what is there, and in a list all after it.

        Raises LookupError or TypeError where there is no such place.
        """
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
        name = self.steps[0][1]
        owner: Any = module._buffers if name in module._buffers else vars(module)
        for before, (kind, _) in zip(self.steps[:-1], self.steps[1:], strict=True):
            owner = owner[before[1]]
            owner = vars(owner) if kind == "." else owner
        return owner


@dataclass(frozen=True)
class HeldContainer:
    """A list, dict, set or object, without what it holds."""

    kind: str
    length: int


def leaves(model: nn.Module) -> dict[Place, Any]:
    """What is in all places of a model, by place; a HeldContainer stands before what it holds."""
    found: dict[Place, Any] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, value in _attributes(module):
            found |= _inside(Place(path, ((".", name),)), value, seen)
    return found


def changed(before: Mapping[Place, Any], after: Mapping[Place, Any]) -> list[str]:
    """The names of places that hold something else, while torch traces; new and filled ones a first run prepares."""
    held = ((place, value) for place, value in before.items() if value is not None)
    return [str(place) for place, value in held if place in after and not _same_traced(value, after[place])]


def newly_held(before: Mapping[Place, Any], after: Mapping[Place, Any]) -> list[str]:
    """The names of places that held nothing before and do now, without those inside of others."""
    held = {place for place, value in before.items() if value is not None}
    new = {place: None for place, value in after.items() if value is not None and place not in held}
    known = held | new.keys()
    return [str(place) for place in new if known.isdisjoint(place.around)]


def _same_traced(a: Any, b: Any) -> bool:
    plain = not isinstance(a, torch.Tensor) and type(a) is type(b)
    return a is b or (plain and bool(a == b))


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in module._buffers.items() if value is None)
    yield from ((name, value) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE)


def _inside(place: Place, value: Any, seen: set[int]) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, (*_NUMBERS, torch.Tensor)):
        yield place, value
        return
    held = _held(value)
    if held is None or id(value) in seen:
        return
    seen.add(id(value))
    kind = "." if _is_object(value) else "["
    yield place, HeldContainer(type(value).__qualname__, len(held))
    for key, item in held.items():
        yield from _inside(Place(place.module, (*place.steps, (kind, key))), item, seen)


def _held(value: Any) -> Mapping[Any, Any] | None:
    """What a container holds, by key; None for what is none."""
    if isinstance(value, dict):
        return dict(dict.items(value))  # of other mappings, and of lazy ones, reading an item may do anything
    if isinstance(value, (list, tuple, deque)):
        return dict(enumerate(value))
    if isinstance(value, (set, frozenset)):
        return {item: item for item in value}
    return vars(value) if _is_object(value) else None


def _is_object(value: Any) -> bool:
    """Whether a value is an object of a class of the user or a library that holds its state in attributes."""
    if isinstance(value, (nn.Module, type, torch.Tensor, Mapping, list, tuple, set, frozenset, deque)):
        return False
    library = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not callable(value) and library not in _FOREIGN


@contextmanager
def as_they_were(model: nn.Module) -> Iterator[None]:
    """Restore the attributes and hooks of every module, and what containers in them hold, whatever forward assigned."""
    containers = list(_containers(model))
    before = [_copied(value) for value in containers]
    try:
        yield
    finally:
        for value, held in zip(containers, before, strict=True):
            _refill(value, held)


def _containers(model: nn.Module) -> Iterator[Any]:
    """Every container that can be changed, once each; of modules and objects the dict of their attributes."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(module) for module in model.modules()]
    own = set(map(id, waiting))
    while waiting:
        value = waiting.pop()
        value = vars(value) if _is_object(value) else value
        held = _held(value)
        if held is None or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (dict, list, set, deque)):
            yield value
        waiting += [v for k, v in held.items() if id(value) not in own or k not in _OF_EVERY_MODULE or k in _HOOKS]


def _copied(value: Any) -> Any:
    return dict(dict.items(value)) if isinstance(value, dict) else list(value)


def _refill(value: Any, held: Any) -> None:
    """Give a container what it held, if that is something else."""
    if isinstance(value, dict):
        now = dict(dict.items(value))
        if list(now) != list(held) or any(now[k] is not v for k, v in held.items()):
            value.clear()
            value.update(held)
    elif len(value) != len(held) or any(a is not b for a, b in zip(value, held, strict=True)):
        value.clear()
        value.update(held) if isinstance(value, set) else value.extend(held)
