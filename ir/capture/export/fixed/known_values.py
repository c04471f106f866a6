"""Fixed values, known while torch traces a model: of inputs and buffers, and of all that is made of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves

from ir.capture.diagnosis import NotExported
from ir.capture.export.example import Example
from ir.capture.program.folded import noted_values
from ir.objects.signature import FixedTensor

MOST_ELEMENTS = 1 << 16  # of what is computed while a model is traced


def has_fixed_values(example: Example) -> bool:
    """Whether the values of an input or a buffer are fixed, or those of what is made of numbers known."""
    return (
        example.computed
        or bool(example.buffers)
        or any(isinstance(leaf, FixedTensor) for leaf in example.arguments.leaves)
    )


@contextmanager
def known_values(example: Example) -> Iterator[None]:
    """Compute with fixed values inside the context: torch does so for single numbers alone.

    What is made of numbers, as by arange, is known as well: it meets fixed values.
    """
    if not has_fixed_values(example):
        yield
        return
    with ExitStack() as patches:
        patches.enter_context(patch("torch._subclasses.fake_tensor.CONSTANT_NUMEL_LIMIT", MOST_ELEMENTS))
        patches.enter_context(patch("torch.tensor", _tensor_of(torch.tensor)))
        patches.enter_context(noted_values())
        patches.enter_context(patch.object(FakeTensorMode, "dispatch", _knowing(FakeTensorMode.dispatch)))
        yield


def _tensor_of(tensor: Any) -> Any:
    """torch.tensor, which cannot read single numbers in tensors while these are traced: they are stacked."""

    def from_data(data: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(data, list) and data and all(isinstance(x, torch.Tensor) and not x.dim() for x in data):
            return torch.stack(data).to(**kwargs) if kwargs else torch.stack(data)
        return tensor(data, **kwargs)

    return from_data


def _knowing(dispatch: Any) -> Any:
    """The dispatch of fake tensors that have their values if these follow from numbers, shapes and known values."""

    def known(mode: FakeTensorMode, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = dispatch(mode, func, types, args, kwargs)
        if _is_filled(func):
            return _filled(mode, made, func, args, kwargs)
        if "empty" in str(func) or not all(map(_is_known, tree_leaves((args, kwargs)))):
            for tensor in tree_leaves(made):
                if isinstance(tensor, FakeTensor):
                    tensor.constant = None  # rules for shapes make results of any values
        return made

    return known


def _is_known(value: Any) -> bool:
    return not isinstance(value, FakeTensor) or value.constant is not None


def _is_filled(func: Any) -> bool:
    """Whether the values that an operator makes follow from numbers, and from the shape of a tensor at most."""
    if not isinstance(func, OpOverload) or torch.Tag.nondeterministic_seeded in func.tags or func._schema.is_mutable:
        return False
    name = func._schema.name.rpartition("::")[2]
    if "empty" in name or func.namespace != "aten":
        return False
    shaped = name.startswith("new_") or name.endswith("_like")
    return shaped or not any("Tensor" in str(a.type) for a in func._schema.arguments)


def _filled(mode: FakeTensorMode, made: Any, func: OpOverload, args: Any, kwargs: Any) -> Any:
    """The same tensor with its values, where it is small and of a fixed size."""
    if not isinstance(made, FakeTensor) or made.constant is not None or made.device.type != "cpu":
        return made
    if made.layout is not torch.strided or not all(isinstance(d, int) for d in made.shape):
        return made
    sizes = (torch.SymInt, torch.SymFloat, torch.SymBool)  # whose value must not be asked for
    if made.numel() > MOST_ELEMENTS or any(isinstance(a, sizes) for a in tree_leaves((args, kwargs))):
        return made
    with no_dispatch():
        values = func(*map(_without_values, args), **{k: _without_values(v) for k, v in kwargs.items()})
    return mode.fake_tensor_converter.from_real_tensor(mode, values, make_constant=True)


def _without_values(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, FakeTensor) else value


@contextmanager
def fixed_buffers(model: nn.Module, values: Mapping[str, FixedTensor]) -> Iterator[None]:
    """Hold known values in buffers inside the context, by dotted name.  Raises NotExported where one is changed."""
    held = {name: model.get_submodule(name.rpartition(".")[0])._buffers for name in values}
    before = {name: held[name][name.rpartition(".")[2]] for name in values}
    known = {name: value.tensor() for name, value in values.items()}
    versions = {name: tensor._version for name, tensor in known.items()}
    for name, tensor in known.items():
        held[name][name.rpartition(".")[2]] = tensor
    try:
        yield
        for name, tensor in known.items():
            if held[name].get(name.rpartition(".")[2]) is not tensor or tensor._version != versions[name]:
                raise NotExported(f"it changes {name}, whose values decide what is computed", by_values=True)
    finally:
        for name, buffer in before.items():
            held[name][name.rpartition(".")[2]] = buffer
