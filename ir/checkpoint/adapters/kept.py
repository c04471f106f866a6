"""LoRA adapters as small matrices beside the weights: each row of a batch chooses one, or none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.layer import require_rank
from ir.checkpoint.adapters.low_rank import Adapted
from ir.checkpoint.quantized.transposed import lies_across
from ir.checkpoint.tensors import Tensorlike
from ir.errors import CaptureError, SourceError

CHOICE = "adapter"
"""The argument of a model that names the adapter of each row: `int64[batch]`, 0 for none."""


class AdapterChoice:
    """The names of a model's adapters, and those that the rows of the call in progress have chosen."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.rows: Tensor | None = None


class AdaptedLayer(nn.Module):
    """A linear layer with adapters; its class is derived from this one and from its own."""

    adapter_choice: AdapterChoice
    adapted_path: str  # of the layer in its model
    lora_down: nn.Parameter  # [adapters + 1, rank, in], zeros for none
    lora_up: nn.Parameter  # [adapters + 1, out, rank]
    lora_scale: Tensor  # [adapters + 1]

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result for `x` `[batch, …, in]`, with what each row's adapter adds, as peft computes it.

        Raises CaptureError where the first dimension of `x` is not the batch: rows that the model has joined or sorted,
        as those of experts, do not tell whose they are.
        """
        y = super().forward(x)
        rows = self.adapter_choice.rows
        if rows is None:
            return y
        if x.shape[0] != rows.shape[0] and rows.shape[0] != 1:
            raise CaptureError(
                f"{self.adapted_path} is called with rows that the model has joined or moved, so it is not known "
                "which adapter each has chosen; leave out --adapter keep to merge it, or train one without this layer"
            )
        wide = x.to(self.lora_down.dtype)
        wide = wide[:, None] if wide.dim() == 2 else wide.flatten(1, -2)
        added = wide @ self.lora_down[rows].mT @ self.lora_up[rows].mT * self.lora_scale[rows][:, None, None]
        return (y + added.view(y.shape)).to(y.dtype)


class AdaptedModel(nn.Module):
    """A model with adapters; its class is derived from this one and from its own."""

    adapter_choice: AdapterChoice

    def forward(self, *args: Any, adapter: Tensor | None = None, **kwargs: Any) -> Any:
        self.adapter_choice.rows = adapter
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.adapter_choice.rows = None


@dataclass(frozen=True, eq=False)
class AdapterStack:
    """The matrices of a layer in all adapters, with zeros for none of them and for the ranks that one lacks."""

    factors: tuple[Tensorlike | None, ...]  # of each adapter, the first of which is none
    inner: tuple[int, ...]  # the shape of one
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.factors), *self.inner

    def read(self, dtype: torch.dtype) -> Tensor:
        whole = torch.zeros(self.shape, dtype=dtype)
        for place, factor in zip(whole, self.factors, strict=True):
            if factor is not None:
                small = factor.read(dtype)
                place[: small.shape[0], : small.shape[1]] = small
        return whole

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        yield self.read(dtype).flatten()


@dataclass(frozen=True, eq=False)
class AdapterScales:
    """The factors by which the products of the matrices of a layer are multiplied."""

    scales: tuple[float, ...]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.scales),)

    def read(self, dtype: torch.dtype) -> Tensor:
        return torch.tensor(self.scales, dtype=dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        yield self.read(dtype)


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """The names of the adapters that a model keeps."""
    choice = getattr(model, "adapter_choice", None)
    return choice.names if isinstance(choice, AdapterChoice) else ()


def keep_adapters(
    model: nn.Module, tensors: Mapping[str, Tensorlike], adapters: Sequence[Adapter]
) -> dict[str, Tensorlike]:
    """Have a model take the index of an adapter for each row, and return its tensors with the adapters' own.

    Raises SourceError for two adapters of one name, and for what is adapted and is no linear layer.
    """
    names = [adapter.path.resolve().name for adapter in adapters]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise SourceError(f"two adapters are kept under the name {twice}: rename the folder of one")
    choice, kept = AdapterChoice(names), dict(tensors)
    changes = [_changes(adapter, model, tensors) for adapter in adapters]
    layers: dict[nn.Module, str] = {}
    for path in (path for of_one in changes for path in of_one):
        layers.setdefault(model.get_submodule(path), path)  # under the first of its paths, if it has several
    for path in layers.values():
        kept |= _hold(model, path, [None, *(of_one.get(path) for of_one in changes)], choice)
    _derive(model, AdaptedModel, choice)
    return kept


def _changes(adapter: Adapter, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> dict[str, Adapted]:
    """The changes of an adapter by the path of the layer.  Raises SourceError for one of no linear layer."""
    found: dict[str, Adapted] = {}
    for name, tensor in adapter.merged(model, tensors).items():
        if tensor is tensors.get(name):
            continue
        path, _, attribute = name.rpartition(".")
        layer = model.get_submodule(path)
        linear = isinstance(layer, nn.Linear) or lies_across(layer)
        if not isinstance(tensor, Adapted) or attribute != "weight" or not linear:
            raise SourceError(
                f"{adapter} changes {name} not as LoRA of a linear layer does: without --adapter keep it is merged"
            )
        found[path] = tensor
    return found


def adapter_stacks(adapter: Adapter, kept: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The matrices and scales of an adapter as layers keep them whose parameters have the shapes `kept`, by name.

    Raises SourceError where it adapts other layers than these, or has a larger rank.
    """
    layers = [name.removesuffix(".lora_down") for name in kept if name.endswith(".lora_down")]
    adapted, whole = adapter.by_layer([f"{layer}.weight" for layer in layers], "no adapter was kept for")
    others = (f"{layer.path}: {part}" for layer in adapted for part in layer.parts if part not in ("lora_A", "lora_B"))
    if other := "DoRA" if adapter.settings.get("use_dora") else next(others, next(iter(whole), "")):
        raise SourceError(f"{adapter} has other tensors than LoRA's ({other}): without --adapter keep it is merged")
    stacks: dict[str, Tensor] = {}
    for path, parts in ((layer.path, layer.parts) for layer in adapted):
        if "lora_A" in parts:
            require_rank(adapter.path, adapter.settings, path, parts["lora_A"].shape[0])
        stacks[f"{path}.lora_scale"] = torch.tensor(adapter.scale(path))
        for name, part in (("lora_down", "lora_A"), ("lora_up", "lora_B")):
            shape, outer = kept[f"{path}.{name}"][1:], int(part == "lora_A")  # the other dimension is the rank
            small = parts[part].read(torch.float32).flatten(1) if part in parts else torch.zeros(0, 0)
            if small.shape[outer] != shape[outer] or small.shape[1 - outer] > shape[1 - outer]:
                raise SourceError(
                    f"{adapter} has {list(small.shape)} for {path}; those that are kept are {list(shape)}"
                )
            stacks[f"{path}.{name}"] = torch.zeros(shape)
            stacks[f"{path}.{name}"][: small.shape[0], : small.shape[1]] = small
    return stacks


def _hold(
    model: nn.Module, path: str, changes: Sequence[Adapted | None], choice: AdapterChoice
) -> dict[str, Tensorlike]:
    """Have a layer take what adapters add; returns its new tensors by name."""
    layer: Any = model.get_submodule(path)
    given = [change for change in changes if change is not None]
    rank = max(change.up.shape[1] for change in given)
    down, up = given[0].down, given[0].up
    dtype = layer.weight.dtype if layer.weight.dtype.itemsize > 2 else torch.float32  # as peft holds them
    ups = tuple(None if change is None else change.up for change in changes)
    downs = tuple(None if change is None else change.down for change in changes)
    stacks: dict[str, Tensorlike] = {
        "lora_down": AdapterStack(downs, (rank, prod(down.shape[1:])), dtype),
        "lora_up": AdapterStack(ups, (up.shape[0], rank), dtype),
        "lora_scale": AdapterScales(tuple(0.0 if change is None else change.scale for change in changes), dtype),
    }
    _derive(layer, AdaptedLayer, choice)
    vars(layer)["adapted_path"] = path
    for name, stack in stacks.items():
        empty = torch.empty(stack.shape, dtype=dtype, device=layer.weight.device)
        layer.register_parameter(name, nn.Parameter(empty, requires_grad=False))
    return {f"{path}.{name}": stack for name, stack in stacks.items()}


def _derive(module: nn.Module, kind: type, choice: AdapterChoice) -> None:
    """Give a module a class derived from `kind` and from its own."""
    own = type(module)
    members: dict[str, Any] = {"__module__": kind.__module__, "__doc__": own.__doc__}
    if kind is AdaptedModel:
        members["forward"] = _with_choice(own)
    module.__class__ = type(own.__name__, (kind, own), members)
    vars(module)["adapter_choice"] = choice


def _with_choice(own: type) -> Any:
    """The forward of `AdaptedModel` with the signature of a class, and the choice at its end."""
    signature = inspect.signature(own.forward)  # type: ignore[attr-defined]
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    choice = inspect.Parameter(CHOICE, inspect.Parameter.KEYWORD_ONLY, default=None)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return AdaptedModel.forward(self, *args, **kwargs)

    forward.__signature__ = signature.replace(parameters=[*parameters, choice, *more])  # type: ignore[attr-defined]
    return forward
