"""A model and the variables around it, put back as they were: whatever forward assigned, and what containers held."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from operator import is_
from types import NoneType
from typing import Any

import torch
from torch import _C, nn
from torch._C._functorch import get_dynamic_layer_stack_depth, pop_dynamic_layer_stack_and_undo_to_depth
from torch.autograd import forward_ad

from ir.capture.unregistered_state.held import attributes_in, is_array, is_object, items_in
from ir.capture.unregistered_state.places import OF_EVERY_MODULE, leaves
from ir.capture.unregistered_state.surroundings import MISSING, held_outside, outer_variables

COPIED_AT_MOST = 1 << 30  # bytes of parameters

_HOOKS = {name for name in OF_EVERY_MODULE if "hooks" in name}
_EMPTY = {bool, int, float, str, NoneType, torch.Tensor, nn.Parameter, torch.dtype}  # which hold nothing: most values
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@contextmanager
def as_they_were(model: nn.Module) -> Iterator[None]:
    """Restore the attributes and hooks of every module, the variables around them, and what containers hold.

    Whatever forward assigned.  Tensors keep the values that they have by then.  Derivatives and transforms of
    torch.func in which forward was when it failed are left.
    """
    depth = get_dynamic_layer_stack_depth()
    outside = held_outside(model)
    containers = list(_containers(model, outside.values()))
    before = [_copied(value) for value in containers]
    try:
        yield
    finally:
        if get_dynamic_layer_stack_depth() > depth:
            pop_dynamic_layer_stack_and_undo_to_depth(depth)
        if forward_ad._current_level < 0:
            with suppress(RuntimeError):  # there is none, but for TorchDynamo, which counts by itself
                _C._exit_dual_level(level=0)
        for value, items in zip(containers, before, strict=True):
            _refill(value, items)
        for variable in outer_variables(model):
            variable.put(outside.get(variable, MISSING))


def _containers(model: nn.Module, outside: Iterable[Any]) -> Iterator[Any]:
    """Every container that can be changed, once each; of modules and objects the attributes."""
    for module in model.modules():
        yield from (vars(module)[name] for name in _TABLES if name in vars(module))
    seen: set[int] = set()
    waiting: list[Any] = [*map(vars, model.modules())]
    own = set(map(id, waiting))
    waiting += outside
    while waiting:
        value = waiting.pop()
        if type(value) in _EMPTY or id(value) in seen:
            continue
        items = {0: None} if is_array(value) else items_in(value)
        if items is None:
            continue
        seen.add(id(value))
        if is_object(value):
            yield attributes_in(value)
        elif is_array(value) or isinstance(value, (dict, list, set, deque)):
            yield value
        waiting += [v for k, v in items.items() if id(value) not in own or k not in OF_EVERY_MODULE or k in _HOOKS]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(dict.items(value))
    if is_array(value):
        return value.copy()
    return dict(value.items()) if isinstance(value, MutableMapping) else list(value)


def _refill(value: Any, items: Any) -> None:
    """Give a container what it held, if that is something else."""
    if is_array(value):
        value[...] = items
    elif isinstance(value, MutableMapping):
        now = _copied(value)
        if list(now) != list(items) or not all(map(is_, now.values(), items.values())):
            value.clear()
            value.update(items)
    elif len(value) != len(items) or any(a is not b for a, b in zip(value, items, strict=True)):
        value.clear()
        value.update(items) if isinstance(value, set) else value.extend(items)


@contextmanager
def put_back(model: nn.Module, own: bool = True) -> Iterator[None]:
    """Restore the values of tensors, too: of those around the model, and where `own` of those that it holds.

    Parameters keep what they have by then where they take more than `COPIED_AT_MOST` bytes.
    """
    tensors = [*held_outside(model).values()]
    if own:
        parameters = list(model.parameters())
        small = sum(p.nbytes for p in parameters) <= COPIED_AT_MOST
        tensors += [*model.buffers(), *leaves(model).values(), *(parameters if small else ())]
    before = [(t, t.detach().clone()) for t in tensors if isinstance(t, torch.Tensor)]
    with as_they_were(model):
        try:
            yield
        finally:
            for tensor, value in before:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.data.copy_(value)
