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
    """A new tensor of the same type; not by an operator on fake tensors, which takes long."""
    shape, strides = tensor.shape, tensor.stride()
    if not isinstance(tensor, FakeTensor):
        return torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device)
    with in_kernel_invocation_manager(tensor.fake_mode):
        meta = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="meta")
    return FakeTensor(tensor.fake_mode, meta, tensor.fake_device)
