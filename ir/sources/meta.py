"""Modules whose parameters never exist in memory, while their buffers have their values."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import init
from torch.nn.parameter import UninitializedParameter
from torch.utils.weak import WeakIdKeyDictionary

from ir.checkpoint.checkpoint import Checkpoint
from ir.process.patching import PATCHING


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device when a module registers it, inside the context; tied ones stay tied.

    Everything else is computed for real, so rotary tables, masks and other constants have their values.
    """
    register = nn.Module.register_parameter
    moved = WeakIdKeyDictionary()

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if isinstance(param, nn.Parameter) and not param.is_meta and not isinstance(param, UninitializedParameter):
            if param not in moved:
                moved[param] = _on_meta(param)
            param = moved[param]
        register(module, name, param)

    with PATCHING, ExitStack() as patches:
        patches.enter_context(patch.object(nn.Module, "register_parameter", register_on_meta))
        for name in _FILLS:
            patches.enter_context(patch.object(init, name, _filling(getattr(init, name))))
        yield
    _give_back_memory()


_FILLS = ("_no_grad_normal_", "_no_grad_uniform_", "_no_grad_trunc_normal_", "_no_grad_fill_", "_no_grad_zero_")


def _filling(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function of torch.nn.init that leaves tensors without values alone, which torch fills slowly."""

    def fill_values(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return tensor if tensor.is_meta else fill(tensor, *args, **kwargs)

    return fill_values


def _give_back_memory() -> None:
    """Return what was freed to the system: glibc keeps the room of parameters that were not yet on the meta device."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _on_meta(param: nn.Parameter) -> nn.Parameter:
    """A parameter of the same type on the meta device, with the attributes that were set on it."""
    meta = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
    vars(meta).update(vars(param))
    return meta


def moved_to_meta(model: nn.Module) -> nn.Module:
    """A module whose parameters were made in memory, with these on the meta device; tied ones stay tied."""
    moved = dict[nn.Parameter, nn.Parameter]()
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None:
                module._parameters[name] = moved.setdefault(param, param if param.is_meta else _on_meta(param))
    _give_back_memory()
    return model


def lost_values(module: nn.Module) -> list[str]:
    """The buffers and tensor attributes without values: they were computed from parameters on the meta device."""
    lost = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    for path, inner in module.named_modules():
        tensors = (name for name, value in vars(inner).items() if isinstance(value, torch.Tensor) and value.is_meta)
        lost += [f"{path}.{name}".lstrip(".") for name in tensors]
    return lost


@contextmanager
def with_values(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Give a model the parameters and buffers of its checkpoint inside the context; nothing if `weights` is none."""
    if not isinstance(weights, Checkpoint):
        yield
        return
    before = {name: tensors.copy() for name, tensors in _tables(model)}
    filled: dict[torch.Tensor, torch.Tensor] = {}
    for name, tensor in _named(model):
        if name in weights and tensor not in filled:
            value = weights[name].to(tensor.dtype)
            filled[tensor] = nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
    try:
        for _, table in _tables(model):
            table.update({key: filled[t] for key, t in table.items() if t is not None and t in filled})
        yield
    finally:
        for name, table in _tables(model):
            table.update(before[name])


def _tables(model: nn.Module) -> Iterator[tuple[tuple[str, str], dict[str, torch.Tensor | None]]]:
    """The tables of parameters and buffers of each module, by path and kind."""
    for path, module in model.named_modules():
        yield (path, "parameters"), module._parameters  # type: ignore[misc]
        yield (path, "buffers"), module._buffers


def _named(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
