"""`stagecut::again`: the operator that stands for a call of a layer whose kind has a template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

_LIBRARY = torch.library.Library("stagecut", "FRAGMENT")
_LIBRARY.define("again(Tensor[] given, str template, int number) -> Tensor[]")
AGAIN = torch.ops.stagecut.again.default

_results: list[Callable[[str], Sequence[torch.Tensor]]] = []  # the innermost context comes last


@contextmanager
def with_results(of: Callable[[str], Sequence[torch.Tensor]]) -> Iterator[None]:
    """Inside the context the operator returns tensors of the types of `of(template)`."""
    _results.append(of)
    try:
        yield
    finally:
        _results.pop()


@torch.library.register_fake("stagecut::again", lib=_LIBRARY)
def _types(given: list[torch.Tensor], template: str, number: int) -> list[Any]:
    return [_of_type(t) for t in _results[-1](template)]


def _of_type(tensor: torch.Tensor) -> torch.Tensor:
    """A new tensor of the same type."""
    shape, strides = tensor.shape, tensor.stride()
    return without_fake_operator(lambda t: torch.empty_strided(shape, strides, dtype=t.dtype, device=t.device), tensor)


def without_fake_operator(make: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that an operator makes of another, on its device; not by way of fake tensors, which takes long."""
    if not isinstance(tensor, FakeTensor):
        return make(tensor)
    with in_kernel_invocation_manager(tensor.fake_mode):
        meta = make(tensor)
    return FakeTensor(tensor.fake_mode, meta, tensor.fake_device)
