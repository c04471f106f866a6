"""A module's own code for loading, run on fake tensors: hooks of its state dict, and overridden methods."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ir.checkpoint.names import stored_names
from ir.checkpoint.rearranged import Rearranged
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError
from ir.patching import PATCHING

_LOAD_IT = "let `model` load the checkpoint itself, and name none beside it"


def has_own_loading(model: nn.Module) -> bool:
    """Whether code that is not torch's changes what a state dict's tensors become in the module."""
    return _overrides(type(model), "load_state_dict") or any(
        _overrides(type(module), "_load_from_state_dict")
        or _takes_extra_state(module)
        or module._load_state_dict_pre_hooks
        or module._load_state_dict_post_hooks
        for module in model.modules()
    )


def loaded_by_itself(
    model: nn.Module, tensors: Mapping[str, Tensorlike], origin: str
) -> tuple[dict[str, Tensorlike], set[str]]:
    """The tensors by the module's names for them, as its `load_state_dict` gives them; and the names without a place.

    The module's own tensors stay as they are.  Raises SourceError where its code fails, or cannot be followed.
    """
    if taking := next((module for module in model.modules() if _takes_extra_state(module)), None):
        raise SourceError(
            f"{type(taking).__name__} has state of its own in checkpoints (`set_extra_state`), which is "
            f"not read: {_LOAD_IT}"
        )
    tried = _followed(model, tensors, origin, versions=True)
    if isinstance(tried, SourceError) or tried.missing:
        other = _followed(model, tensors, origin, versions=False)
        tried = other if isinstance(other, _Loaded) and not other.missing else tried
    if isinstance(tried, SourceError):
        raise tried
    return dict(tried.found), tried.unexpected


@dataclass(frozen=True)
class _Loaded:
    """The outcome of loading a state dict: tensors by the module's names, and names without a tensor or a place."""

    found: Mapping[str, Tensorlike]
    missing: set[str]
    unexpected: set[str]


def _followed(
    model: nn.Module, tensors: Mapping[str, Tensorlike], origin: str, versions: bool
) -> _Loaded | SourceError:
    """The outcome of the module's code, or its error.

    `versions`: whether they are said to be of the present versions of the modules' formats, and not of unknown ones.
    """
    before = dict(_tensors(model))
    state: Any = OrderedDict((name, Rearranged.standing_for(tensor)) for name, tensor in tensors.items())
    if versions:
        state._metadata = {path: {"version": module._version} for path, module in model.named_modules()}
    try:
        missing, unexpected = _load(model, state)
        found = {path: t.source for (path, _, _), t in _tensors(model) if isinstance(t, Rearranged)}
    except Exception as e:
        why = " ".join(str(e).split())
        return SourceError(f"{type(model).__name__}.load_state_dict cannot load {origin}: {why}")
    finally:
        _put_back(model, before)
    names = stored_names(model).items()
    if lost := [name for name, path in names if name in tensors and not {name, path} & {*found, *missing}]:
        return SourceError(
            f"how {type(model).__name__} loads {', '.join(lost[:3])} cannot be followed, as it copies values: "
            f"{_LOAD_IT}"
        )
    return _Loaded(found, missing, unexpected)


def _overrides(cls: type, name: str) -> bool:
    """Whether a class has a method that is not torch's."""
    return not getattr(cls, name).__module__.startswith("torch.")


def _takes_extra_state(module: nn.Module) -> bool:
    return _overrides(type(module), "set_extra_state")


def _load(model: nn.Module, state: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Load the tensors of a state dict in place of the module's; the names that are missing, and those left."""
    load = nn.Module.load_state_dict

    def assigning(module: nn.Module, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return load(module, state, strict=strict, assign=True)

    with PATCHING, warnings.catch_warnings(), patch.object(nn.Module, "load_state_dict", assigning):
        warnings.simplefilter("ignore")  # of copies to the meta device, which are found below
        keys = model.load_state_dict(state, strict=False)
    return set(getattr(keys, "missing_keys", ())), set(getattr(keys, "unexpected_keys", ()))


def _tensors(model: nn.Module) -> Iterator[tuple[tuple[str, nn.Module, str], torch.Tensor]]:
    """The tensors of a module by their path, with the module and the name in it."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                yield (f"{prefix}.{name}".lstrip("."), module, name), tensor


def _put_back(model: nn.Module, before: Mapping[tuple[str, nn.Module, str], torch.Tensor]) -> None:
    """Give the module its own tensors again; those that its code made larger or smaller are of the new size."""
    for (path, module, name), tensor in list(_tensors(model)):
        own = before.get((path, module, name))
        if tensor is own or (own is None and not isinstance(tensor, Rearranged)):
            continue
        if own is None or own.shape != tensor.shape:
            own = torch.empty(tensor.shape, dtype=(tensor if own is None else own).dtype, device="meta")
        if name in module._parameters:
            module._parameters[name] = own if isinstance(own, nn.Parameter) else nn.Parameter(own, False)
        else:
            module._buffers[name] = own
