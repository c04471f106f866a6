"""Buffers, `.data` and conversions of modules that forward makes, recorded as what they do to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ir.capture.diagnosis import NotExported
from ir.capture.program.in_place.mutation import WRITE_IN_PLACE


@contextmanager
def written_in_place(model: nn.Module) -> Iterator[list[Any]]:
    """Turn assignments to buffers and parameters into in-place copies on exit: torch.export records these as mutations.

    Results go into the list that it yields: one in the memory of a buffer that is written keeps what it was.
    Raises NotExported for a buffer that is assigned a tensor of another shape or dtype.
    """
    held_by = ((path, held) for path, module in model.named_modules() for held in (module._buffers, module._parameters))
    before = [(path, held, dict(held)) for path, held in held_by]
    results: list[Any] = []
    yield results
    assigned = list(_assigned(before))
    written = {_memory(were[name]) for were, _, name in assigned}
    results[:] = [_apart(result, written) for result in results]
    new = [_apart(held[name], written) for _, held, name in assigned]  # two may have changed places
    for (were, held, name), value in zip(assigned, new, strict=True):
        were[name].copy_(value)
        held[name] = were[name]


_Held = dict[str, Any]  # buffers or parameters of a module


def _assigned(before: Sequence[tuple[str, _Held, _Held]]) -> Iterator[tuple[_Held, _Held, str]]:
    """The names that were assigned anew in what a module holds, with what was there."""
    for path, held, were in before:
        for name, tensor in were.items():
            assigned = held.get(name)
            if tensor is None or assigned is None or assigned is tensor:
                continue
            if (assigned.shape, assigned.dtype) != (tensor.shape, tensor.dtype):
                if isinstance(tensor, nn.Parameter):  # converted for the call
                    continue
                raise NotExported(
                    f"forward makes {name} of {path or 'the model'} another size or type than it had",
                    advice="write into the buffer that is there, self.buffer[...] = value",
                )
            yield were, held, name


def _apart(value: Any, written: set[int]) -> Any:
    """A tensor, or a copy where it lies in memory that is about to be written."""
    return value.clone() if isinstance(value, torch.Tensor) and _memory(value) in written else value


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


@contextmanager
def data_as_itself() -> Iterator[None]:
    """Make `weight.data` the weight itself, detached, so that what is written into it is recorded.

    torch.export loses what is written to `weight.data`, or crashes.  Raises NotExported where another size is assigned.
    """

    def assign(tensor: torch.Tensor, value: torch.Tensor) -> None:
        if (value.shape, value.dtype) != (tensor.shape, tensor.dtype):
            raise NotExported("it assigns a tensor of another size or type to .data", advice=WRITE_IN_PLACE)
        tensor.copy_(value)

    with patch.object(torch.Tensor, "data", property(torch.Tensor.detach, assign), create=True):
        yield


@contextmanager
def converted_for_the_call(model: nn.Module) -> Iterator[None]:
    """Have `module.to(dtype)` inside the context convert parameters until its exit, so that conversions are recorded.

    torch would exchange the tensors in place, which those of an export do not allow.
    """
    before = [(module._parameters, dict(module._parameters)) for module in model.modules()]

    def apply(module: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        for child in module.children() if recurse else ():
            child._apply(convert)
        for held in (module._parameters, module._buffers):
            held.update({name: _converted(t, convert) for name, t in held.items() if t is not None})  # type: ignore[misc]
        return module

    try:
        with patch.object(nn.Module, "_apply", apply):
            yield
    finally:
        for held, parameters in before:
            held.update(parameters)


def _converted(tensor: torch.Tensor, convert: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The tensor itself where a conversion keeps its type."""
    found = convert(tensor)
    return tensor if (found.shape, found.dtype, found.device) == (tensor.shape, tensor.dtype, tensor.device) else found
