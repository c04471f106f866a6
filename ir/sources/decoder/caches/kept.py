"""The tensors that each layer of a decoder keeps of a text, and the buffers for them."""

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
from ir.capture.repeats.alike import alike_modules
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.layers import LayersOnce
from ir.errors import SourceError
from ir.objects.zeros import zeros

CAPTURED_PAGES = 5  # of the pools while a model is captured: two for each row of the example, and that of padding
CAPTURED_SLOTS = 3  # one for each row, and that of padding
STATES = ("conv", "recurrent")  # kinds of what a layer keeps of a text, in whose caches they are `conv_states`


@dataclass(frozen=True)
class KeptTensor:
    """A tensor that a layer keeps: of each token, as keys are, or one of the whole text, as a recurrence's state is."""

    name: str  # "keys", "conv", "recurrent_1"
    shape: tuple[int, ...]  # heads and numbers a head, of a token; of any shape, of a text
    dtype: torch.dtype
    of_text: bool = False


@dataclass(frozen=True)
class KeptLayer:
    """The tensors that one layer keeps, and whether it forgets what a window has left."""

    tensors: tuple[KeptTensor, ...]
    sliding: bool


def kept_layers(model: Any, small: dict[str, torch.Tensor]) -> tuple[KeptLayer, ...]:
    """The tensors that a run of the model on fake tensors leaves in its cache, a layer each.

    `small`: weights by name, for a run on these where none on fake tensors is possible; none for a large model.
    Raises SourceError for a model that keeps nothing.
    """
    cache = cache_after(model, small, {"input_ids": torch.ones(1, 3, dtype=torch.int64)})
    layers = [kept_by(layer) for layer in getattr(cache, "layers", None) or ()]
    if not any(layer.tensors for layer in layers):
        raise SourceError(f"{type(model).__name__} keeps nothing of a text in a cache of transformers")
    return tuple(layers)


def cache_after(model: Any, small: dict[str, torch.Tensor], given: dict[str, Any]) -> Any:
    """The cache after a run on fake tensors, or with the weights in `small`.  Raises SourceError where none runs."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    given = {**given, "use_cache": True}
    try:
        with torch.no_grad(), quiet(), _batched_experts(model.config):
            try:
                with mode:
                    returned = _called(model, faked(model, mode), given)
            except Exception:  # the model's code looks at values
                if not small:
                    raise
                returned = functional_call(model, small, (), given)
    except Exception as e:
        name = type(model).__name__
        raise SourceError(f"{name} does not run on tokens alone, which --generate asks for: {e}") from e
    return getattr(returned, "past_key_values", None) or getattr(returned, "cache_params", None)


def _called(model: nn.Module, tensors: dict[str, torch.Tensor], given: dict[str, Any]) -> Any:
    """The result of a call with fake tensors, in which layers that are alike run once a kind where that does."""
    once = LayersOnce(alike_modules(model), unkept=True)
    try:
        with once.watched(model):
            return functional_call(model, tensors, (), given)
    except InDoubt:
        return functional_call(model, tensors, (), given)


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


def kept_by(layer: Any) -> KeptLayer:
    """The tensors that the cache of a layer holds."""
    states = {f"{kind}_{i}": t for kind in STATES for i, t in getattr(layer, f"{kind}_states", {}).items()}
    kept = [
        KeptTensor(name.removesuffix("_0"), tuple(t.shape[1:]), t.dtype, of_text=True)
        for name, t in states.items()
        if isinstance(t, torch.Tensor)
    ]
    tokens = {name: getattr(layer, name, None) for name in ("keys", "values")}
    kept += [
        KeptTensor(name, (t.shape[1], t.shape[3]), t.dtype)
        for name, t in tokens.items()
        if isinstance(t, torch.Tensor) and t.dim() == 4
    ]
    return KeptLayer(tuple(kept), bool(getattr(layer, "is_sliding", False)))


@dataclass(frozen=True)
class Pool:
    """The buffer of a layer for a tensor that it keeps, in the module that fills it.

    Keys and values lie in `[pages, page, heads, dim]`, what is kept of a text in `[slots, …]`.
    """

    owner: str  # path of the module; "" is the model
    attribute: str
    kept: KeptTensor
    sliding: bool

    @property
    def fqn(self) -> str:
        return f"{self.owner}.{self.attribute}".lstrip(".")

    @property
    def table(self) -> str:
        """The input of a step that says where a text lies in it."""
        return "slots" if self.kept.of_text else "window_table" if self.sliding else "table"


def add_pools(model: nn.Module, layers: Sequence[KeptLayer], page: int) -> tuple[tuple[Pool, ...], ...]:
    """Register zeros in the modules of the layers; returns the pools of each layer."""
    made: list[tuple[Pool, ...]] = []
    numbered = [(path, m) for path, m in model.named_modules() if hasattr(m, "layer_idx")]
    for index, layer in enumerate(layers):
        inside = [(path, m) for path, m in numbered if m.layer_idx == index]
        owners = [(kept, _owner(inside, kept) or ("", model)) for kept in layer.tensors]
        made.append(tuple(added(index, kept, owner, page, layer.sliding) for kept, owner in owners))
    return tuple(made)


def added(index: int, kept: KeptTensor, owner: tuple[str, nn.Module], page: int, sliding: bool = False) -> Pool:
    """The pool of zeros for a tensor of a layer, registered in a module that is given with its path."""
    path, module = owner
    attribute = kept.name if path else f"{kept.name}_{index}"
    while hasattr(module, attribute):
        attribute = f"cached_{attribute}"
    sizes = (CAPTURED_SLOTS,) if kept.of_text else (CAPTURED_PAGES, page)
    module.register_buffer(attribute, zeros((*sizes, *kept.shape), kept.dtype), persistent=False)
    return Pool(path, attribute, kept, sliding)


def _owner(inside: Sequence[tuple[str, nn.Module]], kept: KeptTensor) -> tuple[str, nn.Module] | None:
    """The module of a layer that keeps a tensor, the innermost of those that attend, or of those that do not."""
    innermost = sorted(inside, key=lambda found: -found[0].count("."))
    return min(innermost, key=lambda found: ("attention" in _class(found[1])) is kept.of_text, default=None)


def _class(module: nn.Module) -> str:
    return type(module).__name__.lower()
