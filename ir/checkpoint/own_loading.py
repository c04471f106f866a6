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
from torch.utils._pytree import tree_leaves

from ir.checkpoint.names import stored_names
from ir.checkpoint.rearranged import Rearranged
from ir.checkpoint.tensors import Stored, Tensorlike
from ir.errors import SourceError, in_one_line
from ir.process.patching import PATCHING

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
    said = _said_versions(tensors)
    tried = _followed(model, tensors, origin, said or {path: m._version for path, m in model.named_modules()})
    unsure = not said and any(_is_versioned(module) for module in model.modules())
    if isinstance(tried, SourceError) or tried.missing or unsure:
        other = _followed(model, tensors, origin, {})
        if isinstance(other, _Loaded) and not other.missing:
            if isinstance(tried, _Loaded) and not tried.missing and repr(tried.found) != repr(other.found):
                raise SourceError(
                    f"{origin} does not say which version of {type(model).__name__} it is of, and tensors of each "
                    f"become others: save its state dict with torch.save, or {_LOAD_IT}"
                )
            tried = other
    if isinstance(tried, SourceError):
        raise tried
    return dict(tried.found), tried.unexpected


def _is_versioned(module: nn.Module) -> bool:
    """Whether a module's own code may load several versions of its format."""
    return module._version != nn.Module._version and _overrides(type(module), "_load_from_state_dict")


def _said_versions(tensors: Mapping[str, Tensorlike]) -> dict[str, int]:
    """The versions of modules' formats that files say, by the paths in the names of tensors."""
    found = dict[str, int]()
    for name, tensor in tensors.items():
        versions = tensor.versions if isinstance(tensor, Stored) else ()
        parts = name.split(".")
        for below, version in zip(range(1, len(parts) + 1), reversed(versions), strict=False):
            if version is not None:
                found.setdefault(".".join(parts[:-below]), version)
    return found


@dataclass(frozen=True)
class _Loaded:
    """The outcome of loading a state dict: tensors by the module's names, and names without a tensor or a place."""

    found: Mapping[str, Tensorlike]
    missing: set[str]
    unexpected: set[str]


def _followed(
    model: nn.Module, tensors: Mapping[str, Tensorlike], origin: str, versions: Mapping[str, int]
) -> _Loaded | SourceError:
    """The outcome of the module's code, or its error.

    `versions`: of the modules' formats, by their paths; those of other modules are said to be unknown.
    """
    before = dict(_tensors(model))
    state: Any = OrderedDict((name, Rearranged.standing_for(tensor)) for name, tensor in tensors.items())
    if versions:
        state._metadata = {path: {"version": version} for path, version in versions.items()}
    try:
        missing, unexpected = _load(model, state)
        found = {path: t.source for (path, _, _), t in _tensors(model) if isinstance(t, Rearranged)}
        made = [*_made(model)]
    except Exception as e:
        return SourceError(f"{type(model).__name__}.load_state_dict cannot load {origin}: {in_one_line(e)}")
    finally:
        _put_back(model, before)
    if made:
        return SourceError(
            f"how {type(model).__name__} loads {origin} cannot be followed, as it makes {made[0]} of that, which no "
            f"state dict has: {_LOAD_IT}"
        )
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


def _made(model: nn.Module) -> Iterator[str]:
    """Names of buffers that are in no state dict, and of attributes, that a module has made of loaded tensors."""
    for prefix, module in model.named_modules():
        held = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        held |= {n: x for n, x in vars(module).items() if n not in ("_parameters", "_buffers", "_modules")}
        yield from (
            f"{prefix}.{name}".lstrip(".")
            for name, value in held.items()
            if any(isinstance(x, Rearranged) for x in tree_leaves(value))
        )


def _put_back(model: nn.Module, before: Mapping[tuple[str, nn.Module, str], torch.Tensor]) -> None:
    """Give the module its own tensors again; those that its code made larger or smaller are of the new size.

    Buffers that are in no checkpoint stay as its code has made them.
    """
    for (path, module, name), tensor in list(_tensors(model)):
        own = before.get((path, module, name))
        kept = own is None or name in module._non_persistent_buffers_set
        if tensor is own or (kept and not isinstance(tensor, Rearranged)):
            continue
        if own is None or own.shape != tensor.shape:
            own = torch.empty(tensor.shape, dtype=(tensor if own is None else own).dtype, device="meta")
        if name in module._parameters:
            module._parameters[name] = own if isinstance(own, nn.Parameter) else nn.Parameter(own, False)
        else:
            module._buffers[name] = own
