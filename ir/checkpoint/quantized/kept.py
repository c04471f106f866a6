"""Modules over stored tensors: a weight that is quantized on disk is a formula of them, computed at each use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._C import DisableTorchFunction

from ir.checkpoint.mosaic import Mosaic, Tile
from ir.checkpoint.quantized.dequantized import Dequantized
from ir.checkpoint.quantized.scheme import HasOperator, Scheme
from ir.checkpoint.rearranged import Rearranged
from ir.checkpoint.tensors import Tensorlike


@dataclass(frozen=True)
class KeptWeight:
    """A weight as a formula of parameters of its module: their names by what they are, and the weight's dtype."""

    scheme: Scheme
    parameters: tuple[tuple[str, str], ...]
    dtype: torch.dtype

    @property
    def attribute(self) -> str:
        """The name of the weight in its module, which its codes have there, too."""
        return self.parameters[0][1]

    def of(self, module: nn.Module) -> torch.Tensor:
        """The weight; that of experts is made one expert at a time, so that nothing else of its size is in memory."""
        codes: Any = module._parameters[self.attribute]
        if self._is_replaced(module):
            return codes
        tensors = tuple(module._parameters[name] for _, name in self.parameters)
        if not self.is_of_experts(codes):
            return self._made(*tensors)[0]
        (weight,) = torch.ops.higher_order.map_impl(self._made, tensors, ())
        return weight

    def is_of_experts(self, codes: torch.Tensor) -> bool:
        """Whether codes are those of several weights."""
        with DisableTorchFunction():  # an export would go through all its modes at each look
            return codes.ndim != self.scheme.dims

    def replace_stored(self, module: nn.Module, plain: nn.Parameter) -> None:
        """Have a module hold a plain weight in place of the stored tensors."""
        stored = {name for _, name in self.parameters} - {self.attribute}
        held = {name: param for name, param in module._parameters.items() if name not in stored}
        module._parameters.clear()
        module._parameters.update({**held, self.attribute: plain})

    def _is_replaced(self, module: nn.Module) -> bool:
        return self.parameters[-1][1] not in module._parameters

    def _made(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor]:
        parts: Any = {what: tensor for (what, _), tensor in zip(self.parameters, tensors, strict=True)}
        if isinstance(self.scheme, HasOperator):
            return (self.scheme.in_graphs(parts, self.dtype),)
        return (self.scheme.dequantize(parts).to(self.dtype),)


def keep_stored(model: nn.Module, tensors: Mapping[str, Tensorlike]) -> dict[str, Tensorlike]:
    """Have modules hold the stored tensors of their weights, where these have a place in them; returns all by name.

    What is dequantized after it cannot be kept: weights that several modules share, and those joined from tensors whose
    scales do not go together.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    kept = dict(tensors)
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        module, whole = model.get_submodule(owner), as_one_formula(tensor)
        if whole is None or uses[id(module._parameters.get(attribute))] != 1:
            continue
        names = {what: attribute if what == "codes" else f"{attribute}_{what}" for what in _in_order(whole.parts)}
        del kept[name]
        kept |= {f"{owner}.{names[what]}".lstrip("."): whole.parts[what] for what in names}
        hold_stored(module, attribute, KeptWeight(whole.scheme, tuple(names.items()), whole.dtype), whole.parts)
    return kept


def hold_stored(module: nn.Module, attribute: str, weight: KeptWeight, parts: Mapping[str, Any]) -> None:
    """Give a module the stored tensors, on the meta device, as parameters, and the weight as a property."""
    for what, name in weight.parameters:
        empty = torch.empty(parts[what].shape, dtype=parts[what].dtype, device="meta")
        module._parameters[name] = nn.Parameter(empty, requires_grad=False)
    module.__class__ = _with_weight(type(module), attribute, weight)


@cache
def kept_weights(cls: type[nn.Module]) -> tuple[KeptWeight, ...]:
    """The weights that modules of a class hold as they are stored."""
    members = (member for base in cls.__mro__ for member in vars(base).values() if isinstance(member, property))
    getters = (getattr(member.fget, "__self__", None) for member in members)
    return tuple(weight for weight in getters if isinstance(weight, KeptWeight))


@cache
def _with_weight(cls: type[nn.Module], attribute: str, weight: KeptWeight) -> type[nn.Module]:
    name = cls.__name__ if cls.__name__.startswith("Quantized") else f"Quantized{cls.__name__}"
    return type(name, (cls,), {attribute: property(weight.of), "__module__": __name__})


def as_one_formula(tensor: Tensorlike) -> Dequantized | None:
    """A weight as one formula of stored tensors, where it is one, or is joined from some of the same scheme.

    [experts, rows, columns] are joined from [rows, columns]; each stored tensor is then joined alike.
    """
    if isinstance(tensor, Dequantized):
        return tensor if _goes_with_experts(tensor) else None
    if not isinstance(tensor, Mosaic) or not all(isinstance(tile.source, Dequantized) for tile in tensor.tiles):
        return None
    by_expert: dict[tuple[int, ...], list[Tile]] = {}
    for tile in tensor.tiles:
        by_expert.setdefault(tile.at[:-2], []).append(tile)
    first: Any = tensor.tiles[0].source
    alike = {(t.source.scheme, *t.source.parts) for t in tensor.tiles}  # type: ignore[attr-defined]
    if len(tensor.shape) - len(first.shape) > 1 or len(alike) > 1 or any(t.at[-1] for t in tensor.tiles):
        return None
    parts = {what: _part(what, list(by_expert.values()), len(tensor.shape) > 2) for what in first.parts}
    if any(part is None for part in parts.values()):
        return None
    whole = Dequantized(first.scheme, {what: part for what, part in parts.items() if part is not None}, first.dtype)
    return whole


def _part(what: str, experts: list[list[Tile]], stack: bool) -> Tensorlike | None:
    """One of the stored tensors, joined over the tiles of each expert; None where its parts do not fit together."""
    rows = list[torch.Tensor]()
    for tiles in experts:
        sources: list[Any] = [tile.source for tile in tiles]
        axes = [s.scheme.rows({name: part.shape for name, part in s.parts.items()}).get(what) for s in sources]
        axis = axes[0]
        parts: list[torch.Tensor] = [Rearranged.standing_for(source.parts[what]) for source in sources]
        if any(a != axis for a in axes) or (axis is None and len(parts) > 1):
            return None
        if axis is not None and any(s.shape[0] % axis.rows for s in sources[:-1]):
            return None
        rows.append(torch.cat(parts, axis.dim) if axis is not None and len(parts) > 1 else parts[0])
    if len({row.shape for row in rows}) > 1:
        return None
    whole: Any = torch.stack(rows) if stack else rows[0]
    return whole.source


def _goes_with_experts(weight: Dequantized) -> bool:
    """Whether each stored tensor of experts has its part for each."""
    codes = weight.parts["codes"].shape
    return len(codes) == weight.scheme.dims or all(p.shape[:1] == codes[:1] for p in weight.parts.values())


def _in_order(parts: Mapping[str, Any]) -> list[str]:
    return ["codes", *(what for what in parts if what != "codes")]
