"""Tensors anywhere on a model's modules, held in buffers, so that an export records what forward does to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ir.capture.unregistered_state.places import Place
from ir.capture.unregistered_state.restoring import as_they_were


@contextmanager
def as_buffers(model: nn.Module, states: Mapping[Place, torch.Tensor]) -> Iterator[Mapping[str, str]]:
    """Hold each place in a non-persistent buffer inside the context, with the given value at first.

    An attribute of a module becomes a buffer of its name.  What lies in a list, a dict or an object is put there before
    each call of the model, and read from there after it.  Yields the name of each place by its buffer's.
    """
    names: dict[str, str] = {}
    with ExitStack() as undo:
        undo.enter_context(as_they_were(model))
        inner: list[tuple[Place, nn.Module, str]] = []
        for place, value in states.items():
            module = model.get_submodule(place.module)
            name = _name(place, module)
            undo.enter_context(_registered(module, name, value))
            names[f"{place.module}.{name}".lstrip(".")] = str(place)
            if len(place.steps) > 1:
                inner.append((place, module, name))

        def put(*_: Any) -> None:
            for place, module, name in inner:
                place.put(model, module._buffers[name])

        def take(*_: Any) -> None:
            for place, module, name in inner:
                module._buffers[name] = place.get(model)

        if inner:
            undo.callback(model.register_forward_pre_hook(put, prepend=True).remove)
            undo.callback(model.register_forward_hook(take).remove)
        yield names


@contextmanager
def as_attributes(model: nn.Module, buffers: Iterable[Place]) -> Iterator[None]:
    """Hold buffers in plain attributes inside the context: an export keeps no state for them."""
    with as_they_were(model):
        for place in buffers:
            module, (_, name) = model.get_submodule(place.module), place.steps[-1]
            vars(module)[name] = module._buffers.pop(name)
        yield


@contextmanager
def _registered(module: nn.Module, name: str, value: torch.Tensor) -> Iterator[None]:
    """A buffer in place of an attribute, or of a buffer that is None."""
    missing = name not in module._buffers
    before, persistent = module._buffers.get(name), name not in module._non_persistent_buffers_set
    vars(module).pop(name, None)
    module._buffers[name] = value.detach().clone()
    module._non_persistent_buffers_set.add(name)
    try:
        yield
    finally:
        module._buffers[name] = before
        if missing:
            del module._buffers[name]
        if persistent or missing:
            module._non_persistent_buffers_set.discard(name)


def _name(place: Place, module: nn.Module) -> str:
    """The buffer of a place: `hidden` for an attribute, `hidden_0` for what is in a list, and free."""
    name = re.sub(r"\W+", "_", "_".join(str(key) for _, key in place.steps))
    while len(place.steps) > 1 and hasattr(module, name):
        name += "_"
    return name
