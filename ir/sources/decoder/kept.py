"""The keys and values that each layer of a decoder keeps of every token, and the buffers for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from ir.capture.export.recording import quiet
from ir.errors import SourceError

CAPTURED_PAGES = 5  # of the pools while a model is captured: two for each row of the example, and that of padding


@dataclass(frozen=True)
class KeptTensor:
    """The keys or the values that a layer keeps of each token."""

    name: str  # "keys"
    heads: int
    width: int  # numbers a head
    dtype: torch.dtype


@dataclass(frozen=True)
class KeptLayer:
    """The tensors that one layer keeps of each token, and whether it forgets what a window has left."""

    tensors: tuple[KeptTensor, ...]
    sliding: bool


def kept_layers(model: Any, small: dict[str, torch.Tensor]) -> tuple[KeptLayer, ...]:
    """The tensors that a run of the model on fake tensors leaves in its cache, a layer each.

    `small`: weights by name, for a run on these where none on fake tensors is possible; none for a large model.
    Raises SourceError for a model that keeps anything else than keys and values, or nothing.
    """
    name = type(model).__name__
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    given = {"input_ids": torch.ones(1, 3, dtype=torch.int64), "use_cache": True}
    try:
        with torch.no_grad(), quiet(), _batched_experts(model.config):
            try:
                with mode:
                    returned = functional_call(model, faked(model, mode), (), given)
            except Exception:  # the model's code looks at values
                if not small:
                    raise
                returned = functional_call(model, small, (), given)
    except Exception as e:
        raise SourceError(f"{name} does not run on tokens alone, which --generate asks for: {e}") from e
    layers = getattr(getattr(returned, "past_key_values", None), "layers", None)
    if not layers:
        raise SourceError(f"{name} keeps no keys and values of a text in a cache; --generate is for decoders that do")
    return tuple(_kept(name, layer) for layer in layers)


@contextmanager
def _batched_experts(config: Any) -> Iterator[None]:
    """Inside the context, experts run as batched products: torch's rule for grouped ones knows one dtype alone."""
    configs = [config, *(inner for n in config.sub_configs if (inner := getattr(config, n, None)) is not None)]
    before = [c._experts_implementation for c in configs]
    for c in configs:
        c._experts_implementation = "batched_mm"
    try:
        yield
    finally:
        for c, implementation in zip(configs, before, strict=True):
            c._experts_implementation = implementation


def faked(model: nn.Module, mode: FakeTensorMode) -> dict[str, torch.Tensor]:
    """Tensors without data for all parameters and buffers of a model, by name; ties stay ties."""
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    made: dict[int, torch.Tensor] = {}
    for _, tensor in tensors:
        if id(tensor) not in made:
            with mode:
                made[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype)
    return {name: made[id(tensor)] for name, tensor in tensors}


def _kept(model: str, layer: Any) -> KeptLayer:
    found = {name: getattr(layer, name, None) for name in ("keys", "values")}
    odd = any(getattr(layer, f"{kind}_states", None) for kind in ("conv", "recurrent"))
    if odd or not all(isinstance(t, torch.Tensor) and t.dim() == 4 for t in found.values()):
        raise SourceError(
            f"{model} keeps more than keys and values ({type(layer).__name__}), which --generate lacks yet"
        )
    tensors = (KeptTensor(n, t.shape[1], t.shape[3], t.dtype) for n, t in found.items() if isinstance(t, torch.Tensor))
    return KeptLayer(tuple(tensors), bool(getattr(layer, "is_sliding", False)))


@dataclass(frozen=True)
class Pool:
    """The buffer of a layer for its keys or values, `[pages, page, heads, dim]`, in the module that fills it."""

    owner: str  # path of the module; "" is the model
    attribute: str
    sliding: bool

    @property
    def fqn(self) -> str:
        return f"{self.owner}.{self.attribute}".lstrip(".")


def add_pools(model: nn.Module, layers: Sequence[KeptLayer], page: int) -> tuple[tuple[Pool, ...], ...]:
    """Register zeros in the modules of the layers; returns the pools of each layer."""
    return tuple(tuple(_added(model, i, layer, page)) for i, layer in enumerate(layers))


def _added(model: nn.Module, index: int, layer: KeptLayer, page: int) -> Iterator[Pool]:
    inside = ((path, m) for path, m in model.named_modules() if getattr(m, "layer_idx", None) == index)
    path, owner = next(inside, ("", model))
    for kept in layer.tensors:
        attribute = kept.name if path else f"{kept.name}_{index}"
        while hasattr(owner, attribute):
            attribute = f"cached_{attribute}"
        zeros = torch.zeros(CAPTURED_PAGES, page, kept.heads, kept.width, dtype=kept.dtype)
        owner.register_buffer(attribute, zeros, persistent=False)
        yield Pool(path, attribute, layer.sliding)
