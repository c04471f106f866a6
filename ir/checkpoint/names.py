"""The names of a tensor: in the model, in its state dict, and in a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import prod
from typing import TypeVar

import torch
from torch import nn

from ir.checkpoint.tensors import Tensorlike

_T = TypeVar("_T")


def own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under the names of the modules that hold them, which hooks of a state dict may change."""
    parameters = nn.Module.named_parameters(model, remove_duplicate=False)
    return {**dict(parameters), **dict(nn.Module.named_buffers(model, remove_duplicate=False))}


def stored_names(model: nn.Module) -> dict[str, str]:
    """For each tensor of the model's state dict, its own name in the model by its name there."""
    state = {name: t for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, torch.Tensor)}
    own = own_tensors(model)
    by_identity = {id(tensor): name for name, tensor in own.items()}
    return {name: name if name in own else by_identity.get(id(tensor), name) for name, tensor in state.items()}


def renamed_for(wanted: Iterable[str], tensors: Mapping[str, Tensorlike]) -> dict[str, str]:
    """The names in a checkpoint as they are, or with a prefix added or removed, whichever fits most of the `wanted`.

    Prefixes differ if the saved module is a part of the one to cut, or contains it, or was wrapped for training.
    """
    names = set(wanted)
    removed = Counter(prefix for name in tensors for prefix, rest in _splits(name) if rest in names)
    added = Counter(prefix for name in names for prefix, rest in _splits(name) if rest in tensors)
    fits = [(removed[""], 1, ""), *((n, 0, p) for p, n in removed.items()), *((n, -1, p) for p, n in added.items())]
    _, way, prefix = max(fits, key=lambda fit: (fit[0], fit[1], -len(fit[2])))
    if way < 0:
        return {name: prefix + name for name in tensors}
    return {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}


def rival_prefixes(wanted: Iterable[str], tensors: Mapping[str, Tensorlike]) -> tuple[str, ...]:
    """The prefixes that fit as well as the one that `renamed_for` removes, over other tensors; itself the first."""
    names = set(wanted)
    taken = {new: old for old, new in renamed_for(names, tensors).items() if new in names}
    if not taken or any(new == old for new, old in taken.items()):
        return ()
    held = dict[str, dict[str, Tensorlike]]()
    for name, tensor in tensors.items():
        for prefix, rest in _splits(name):
            if rest in names:
                held.setdefault(prefix, {})[rest] = tensor
    mine = {new: tensors[old] for new, old in taken.items()}
    others = [prefix for prefix, found in held.items() if len(found) == len(mine) and not same_copies(found, mine)]
    first, old = next(iter(taken.items()))
    return (old.removesuffix(first), *others) if others else ()


def same_copies(one: Mapping[str, Tensorlike], other: Mapping[str, Tensorlike]) -> bool:
    """Whether two tables have the same names, dtypes and values, read from the smallest on until some differ."""
    if one.keys() != other.keys() or any(one[name].dtype != other[name].dtype for name in one):
        return False
    by_size = sorted(one, key=lambda name: prod(one[name].shape))
    return all(same_values(one[name], other[name], one[name].dtype) for name in by_size)


def same_values(one: Tensorlike, other: Tensorlike, dtype: torch.dtype) -> bool:
    """Whether two tensors have the same values in a dtype."""
    return one == other or (one.shape == other.shape and torch.equal(one.read(dtype), other.read(dtype)))


def fit(wanted: Iterable[str], tensors: Mapping[str, Tensorlike]) -> int:
    """The number of the wanted names that a table of tensors has, with a prefix added or removed."""
    return len(set(wanted).intersection(renamed_for(wanted, tensors).values()))


_WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""Parts of names that data parallelism, torch.compile, activation checkpointing and FSDP put there."""


def unwrapped(wanted: Iterable[str], tensors: Mapping[str, _T]) -> dict[str, _T]:
    """The tensors under names without the parts that wrappers of training put there, which the `wanted` may have."""
    own = {_without(name, _WRAPPERS): name for name in wanted}
    foreign = _WRAPPERS.difference(part for name in own.values() for part in name.split("."))
    mine = set(own.values())
    bare = {n: own.get(_without(n, _WRAPPERS), _without(n, foreign)) for n in tensors if n not in mine}
    if len(set(bare.values())) < len(bare) or not set(bare.values()).isdisjoint(tensors.keys() - bare.keys()):
        return dict(tensors)
    return {bare.get(name, name): tensor for name, tensor in tensors.items()}


def _without(name: str, parts: Collection[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in parts)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Prefix and rest: "", and each sequence of the first parts with the dot behind it."""
    at = 0
    while at >= 0:
        yield name[:at], name[at:]
        at = name.find(".", at) + 1 or -1
