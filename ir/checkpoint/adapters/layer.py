"""An adapter's tensors for one layer, and kinds of adapters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import sqrt
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import nn

from ir.checkpoint.adapters.retrained import Retrained, WeightFormula
from ir.checkpoint.adapters.settings import SETTINGS, of_pattern
from ir.checkpoint.quantized.transposed import lies_across
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError

LayerChange: TypeAlias = Callable[[Tensorlike], Tensorlike]
"""The changed tensor, from the base's."""


@dataclass(frozen=True, eq=False)
class LayerAdapter:
    """The tensors of an adapter for one layer.

    `attribute`: the layer's parameter that they are for; "weight", unless the adapter names parameters.  `base`: the
    tensors of the model as they are without the adapter.
    """

    file: Path  # the adapter's folder, for errors
    settings: Mapping[str, Any]
    path: str
    layer: nn.Module
    parts: Mapping[str, Tensorlike]
    attribute: str = "weight"
    base: Mapping[str, Tensorlike] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the tensor that is adapted."""
        return f"{self.path}.{self.attribute}"

    @property
    def across(self) -> bool:
        """Whether the weight is [columns, rows], as those of embeddings are for peft."""
        upright = isinstance(self.layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        turned = bool(self.settings.get("fan_in_fan_out")) and not upright
        return lies_across(self.layer) or turned or isinstance(self.layer, nn.Embedding)

    @property
    def key(self) -> str:
        """The path that patterns of settings are for."""
        return self.path if self.attribute == "weight" else self.name

    @cached_property
    def scale(self) -> float:
        """The factor of what is added.  Raises SourceError where the settings do not give one."""
        return scale_of(self.file, self.settings, self.key)

    def retrained(
        self, formula: WeightFormula, base: Tensorlike, more: Mapping[str, Tensorlike] = MappingProxyType({})
    ) -> Retrained:
        """A changed tensor, by the adapter's and `more`.  Raises SourceError where the adapter's do not fit it."""
        whole = Retrained(base, {**self.parts, **more}, formula)
        held = ", ".join(f"{name} {list(part.shape)}" for name, part in self.parts.items())
        try:
            fits = whole.shape_made() == tuple(base.shape)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError, ArithmeticError, NotImplementedError):
            fits = False
        if not fits:
            raise SourceError(
                f"{self.file} adapts {self.name} of {list(base.shape)} by {held}, which do not fit it; fetch it again"
            )
        return whole

    def by(self, formula: WeightFormula, attribute: str = "weight", **given: Any) -> tuple[str, LayerChange]:
        """The change of a tensor of the layer by a formula with some of its arguments `given`."""
        return attribute, partial(self.retrained, partial(formula, **given))

    def require_indices(self, name: str, size: int, row: int | None = None) -> None:
        """Raise SourceError where a tensor of indices, or a row of it, has others than those below `size`."""
        given = self.parts[name].read(torch.int64) if name in self.parts else torch.zeros(0)
        if row is not None and given.numel():
            given = given.reshape(-1, given.shape[-1] if given.dim() else 1)[row : row + 1]
        if given.numel() and not 0 <= given.min().item() <= given.max().item() < size:
            raise SourceError(
                f"{self.file} changes {self.name} by {name} {given.max().item()}, of {size} there are; is it its base?"
            )

    def number(self, key: str, default: float, least: float = 1) -> Any:
        """A number of the settings.  Raises SourceError for what is none, and for one that is less than `least`."""
        value = self.settings.get(key, default)
        kinds = (int, float) if isinstance(default, float) else (int,)
        if type(value) not in kinds or value < least:
            raise SourceError(f"{self.file / SETTINGS} has {key} {value!r}, which is no number for that; fetch it")
        return value


@dataclass(frozen=True)
class AdapterKind:
    """A kind of adapters.

    `changes`: those of a layer's tensors, by the attribute of each.  `parts`: the names of an adapter's tensors for a
    layer; `shared`: of those for all layers; `indices`: of those that hold integers.
    """

    changes: Callable[[LayerAdapter], Iterator[tuple[str, LayerChange]]]
    parts: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    indices: tuple[str, ...] = ()


def require_rank(file: Path, settings: Mapping[str, Any], path: str, found: int) -> None:
    """Raise SourceError where a module's factors have another rank than the settings, by which they are scaled."""
    if found != (said := _rank_and_alpha(file, settings, path)[0]):
        raise SourceError(f"{file} has factors of rank {found} for {path}; its settings say {said}: fetch both again")


def scale_of(file: Path, settings: Mapping[str, Any], path: str) -> float:
    """The factor of what an adapter adds to a module.  Raises SourceError where the settings do not give one."""
    rank, alpha = _rank_and_alpha(file, settings, path)
    try:
        return alpha / sqrt(rank) if settings.get("use_rslora") else alpha / rank
    except (TypeError, ValueError, ArithmeticError) as e:
        raise _no_scale(file, settings, path, e) from e


def _rank_and_alpha(file: Path, settings: Mapping[str, Any], path: str) -> tuple[Any, Any]:
    try:
        rank = of_pattern(settings.get("rank_pattern"), path, settings.get("r", 8))
        return rank, of_pattern(settings.get("alpha_pattern"), path, settings.get(_alpha_key(settings), 8))
    except (TypeError, AttributeError, re.error) as e:
        raise _no_scale(file, settings, path, e) from e


def _alpha_key(settings: Mapping[str, Any]) -> str:
    return "alpha" if settings.get("peft_type") in ("LOHA", "LOKR") else "lora_alpha"


def _no_scale(file: Path, settings: Mapping[str, Any], path: str, e: Exception) -> SourceError:
    key = _alpha_key(settings)
    return SourceError(f"{file / SETTINGS} gives {path} no scale (r, {key} and their patterns): {e}; fetch it")
