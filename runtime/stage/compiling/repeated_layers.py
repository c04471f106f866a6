"""Layers of a stage that are alike: each is one operator to torch.compile, which compiles their class alone, once.

Without that, the time to compile a stage grows with the number of its layers.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch.func import functional_call

_MARK = "__marked_compile_region_fn__"  # what torch calls the function that stage files mark as a nested_compile_region
_OWN = "_own"  # the attribute of a layer for the tensor that says which one it is
_TENSOR, _SIZE = "ts"


@dataclass(eq=False)
class LayerClass:
    """A class of layers, whose `forward` is compiled with `options` of torch.compile at its first call."""

    name: str
    cls: type[nn.Module]
    options: Mapping[str, Any]
    layers: WeakValueDictionary[int, nn.Module] = field(default_factory=WeakValueDictionary)  # by the place of `_OWN`
    _results: WeakKeyDictionary[Any, dict[str, list[_Kind]]] = field(default_factory=WeakKeyDictionary)

    def add(self, layer: nn.Module, own: Tensor) -> None:
        """Make an operator of a layer that alone holds the tensor `own`."""
        self.layers[own.data_ptr()] = layer
        layer.__dict__[_OWN] = own  # not as another name of a parameter
        layer.__class__ = self._operators

    @cached_property
    def plain(self) -> Callable[..., Any]:
        """The code of the layers, without the mark."""
        return getattr(self.cls.forward, _MARK)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        return torch.compile(self.plain, **self.options)

    @cached_property
    def _operators(self) -> type[nn.Module]:
        """The class of those that are operators to torch.compile."""

        names = tuple(inspect.signature(self.plain).parameters)[1:]

        def forward(layer: nn.Module, *given: Any, **named: Any) -> Any:
            if not torch.compiler.is_compiling():
                return self.plain(layer, *given, **named)
            given = (*given, *[named[name] for name in names[len(given) :]])
            tensors = [one for one in given if isinstance(one, Tensor)]
            sizes = [one for one in given if not isinstance(one, Tensor)]
            order = "".join([_TENSOR if isinstance(one, Tensor) else _SIZE for one in given])
            made = torch.ops.stagecut.layer(tensors, sizes, layer.__dict__[_OWN], order, self.name)
            return made[0] if len(made) == 1 else tuple(made)

        return type(self.cls.__name__, (self.cls,), {"forward": forward})

    def run(self, given: Sequence[Any], own: Tensor) -> list[Tensor]:
        """The results of the layer that holds the tensor `own`."""
        return _listed(self.compiled(self.layers[own.data_ptr()], *given))

    def empty(self, given: Sequence[Any]) -> list[Tensor]:
        """The same without data: for inputs like others before, the results are like theirs."""
        mode = detect_fake_mode(given)
        known = self._results.setdefault(mode, {})
        key = str([_kind(one) if isinstance(one, Tensor) else one for one in given])
        if key not in known:
            known[key] = [_kind(one) for one in _listed(self._tried(given, mode))]
        return [torch.empty_strided(size, stride, dtype=of, device=on) for size, stride, of, on in known[key]]

    def _tried(self, given: Sequence[Any], mode: Any) -> Any:
        """The results of a layer that holds tensors without data."""
        from torch._export.utils import _compiling_state_context  # takes a second to import

        layer = _AsItIs(self.plain, next(iter(self.layers.values())))
        held = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in _held(layer).items()}
        with _compiling_state_context():
            return functional_call(layer, held, tuple(given), tie_weights=False)


class _AsItIs(nn.Module):
    """A layer that is no operator."""

    def __init__(self, call: Callable[..., Any], layer: nn.Module) -> None:
        super().__init__()
        self._call, self.layer = call, layer

    def forward(self, *given: Any) -> Any:
        return self._call(self.layer, *given)


_Kind = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]
_CLASSES: WeakValueDictionary[str, LayerClass] = WeakValueDictionary()  # by their names, which operators know


def set_apart(stage: nn.Module, options: Mapping[str, Any]) -> None:
    """Make operators of the layers that a stage's file marks as repeated; outside of torch.compile they run as before.

    Not of layers without a tensor that is theirs alone.  Such operators have no derivatives.
    """
    layers = [layer for layer in stage.modules() if hasattr(type(layer).forward, _MARK)]
    holders = Counter(place for layer in layers for place in {t.data_ptr() for t in _held(layer).values()})
    for layer in layers:
        own = next((tensor for tensor in _held(layer).values() if holders[tensor.data_ptr()] == 1), None)
        if own is not None:
            _class_of(type(layer), options).add(layer, own)


def _class_of(cls: type[nn.Module], options: Mapping[str, Any]) -> LayerClass:
    """The class of layers, by a name that is the same in other processes: compiled stages are kept with it."""
    name = f"{Path(inspect.getfile(cls)).stem}.{cls.__name__}"
    while (known := _CLASSES.get(name)) is not None and known.cls is not cls:
        name += "'"
    return _CLASSES.setdefault(name, known or LayerClass(name, cls, options))


def _given(tensors: Iterable[Tensor], sizes: Iterable[int], order: str) -> list[Any]:
    """The arguments of a layer in their order."""
    tensors, sizes = iter(tensors), iter(sizes)
    return [next(tensors if kind == _TENSOR else sizes) for kind in order]


def _held(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, each module in it once."""
    return {
        f"{path}.{name}".lstrip("."): tensor
        for path, inner in module.named_modules()
        for tensors in (inner.named_parameters, inner.named_buffers)
        for name, tensor in tensors(recurse=False, remove_duplicate=False)
    }


def _kind(tensor: Tensor) -> _Kind:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _listed(made: Any) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)


def _run(tensors: list[Tensor], sizes: list[int], own: Tensor, order: str, name: str) -> list[Tensor]:
    with torch._C._ForceDispatchKeyGuard(*_OUTSIDE):  # or what is compiled within another call would not be used again
        return _CLASSES[name].run(_given(tensors, sizes, order), own)


def _empty(tensors: list[Tensor], sizes: list[int], own: Tensor, order: str, name: str) -> list[Tensor]:
    return _CLASSES[name].empty(_given(tensors, sizes, order))


_OUTSIDE = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()  # of operators
_library = torch.library.Library("stagecut", "FRAGMENT")
_library.define("layer(Tensor[] tensors, SymInt[] sizes, Tensor own, str order, str name) -> Tensor[]")
_library.impl("layer", _run, "CompositeExplicitAutograd")
torch.library.register_fake("stagecut::layer", _empty, lib=_library)
