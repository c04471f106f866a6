"""Weights that a model has under several names, which a checkpoint may hold with other values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from ir.checkpoint.names import same_values
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError
from ir.graph import Param, State


def check_ties(value: Param | State, tensors: Mapping[str, Tensorlike], origin: str) -> None:
    """Raise SourceError for names that the model ties and whose tensors differ in the checkpoint."""
    for first, other in _differing(value.fqns, tensors, value.type.dtype):
        raise SourceError(f"{first} and {other} are one weight in the model and differ in {origin}; untie them")


def untie(model: nn.Module, tensors: Mapping[str, Tensorlike]) -> Iterator[str]:
    """Give names that a model ties parameters of their own where the checkpoint's values differ; yields a note on each.

    So transformers loads them, whatever config.json says, and so peft trains an adapter of one of them.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for tied in names.values():
        for first, other in _differing(tied, tensors, model.get_parameter(tied[0]).dtype):
            owner, _, attribute = other.rpartition(".")
            layer = model.get_submodule(owner)
            own: torch.Tensor = getattr(layer, attribute)
            setattr(layer, attribute, nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad))
            yield f"{first} and {other} have other values, and so are two weights, though the model ties them"


def alike_names(name: str, own: Mapping[str, torch.Tensor], tensors: Mapping[str, Tensorlike]) -> list[str]:
    """The names of one tensor of the model, `own` by its names, that do not have other values among `tensors`.

    The given name comes first.
    """
    names = [name, *(other for other in own if other != name and own[other] is own[name])]
    apart = {other for _, other in _differing(names, tensors, own[name].dtype)}
    return [other for other in names if other not in apart]


def _differing(
    names: Iterable[str], tensors: Mapping[str, Tensorlike], dtype: torch.dtype
) -> Iterator[tuple[str, str]]:
    """The first of the names, with each other one whose values are not its values in a dtype, that of the model."""
    first, *others = [name for name in names if name in tensors] or [""]
    for other in others:
        if not same_values(tensors[first], tensors[other], dtype):
            yield first, other
