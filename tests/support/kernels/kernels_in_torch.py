"""Kernels in Triton, run by torch on the CPU: each operator of the language that the kernels of functions use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ir.fused.kernel_source import KernelSource


@dataclass(frozen=True)
class Pointer:
    """Places in the memory of a tensor."""

    memory: Tensor
    places: Any = 0

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.memory, self.places + more)

    def __sub__(self, less: Any) -> Pointer:
        return Pointer(self.memory, self.places - less)


def run_in_torch(kernel: KernelSource, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Run all programs of a kernel, which writes the results.  Raises IndexError for places outside of a tensor."""
    names: dict[str, Any] = {"tl": _language(), "libdevice": _DEVICE}
    exec(kernel.source, names)
    pointers = [Pointer(_memory(t)) for t in (*tensors, *results)]
    for program in range(kernel.programs):
        names["tl"].program_id = [program].__getitem__
        names["fused"](*pointers, *kernel.numbers)


def _memory(tensor: Tensor) -> Tensor:
    """All that a tensor spans, and no more."""
    room = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.as_strided((room,), (1,))


def _load(pointer: Pointer, mask: Any = True) -> Tensor:
    places, mask = torch.broadcast_tensors(torch.as_tensor(pointer.places), torch.as_tensor(mask))
    found = torch.full(places.shape, float("nan"), dtype=pointer.memory.dtype)  # what is not loaded counts nowhere
    found[mask] = pointer.memory[places[mask]]
    return found


def _store(pointer: Pointer, value: Tensor, mask: Any) -> None:
    places, mask, value = torch.broadcast_tensors(torch.as_tensor(pointer.places), torch.as_tensor(mask), value)
    assert value.dtype == pointer.memory.dtype
    pointer.memory[places[mask]] = value[mask]


def _language() -> SimpleNamespace:
    return SimpleNamespace(
        arange=torch.arange,
        load=_load,
        store=_store,
        where=lambda mask, a, b: torch.where(mask, torch.as_tensor(a), torch.as_tensor(b)),
        zeros=lambda shape, dtype: torch.zeros(shape, dtype=dtype),
        reshape=torch.reshape,
        permute=torch.permute,
        split=lambda x: x.unbind(-1),
        sqrt_rn=torch.sqrt,
        math=SimpleNamespace(div_rn=lambda a, b: a / b),
        inline_asm_elementwise=lambda asm, registers, given, *options: torch.rsqrt(given[0]),
        **{name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")},
    )


_DEVICE = SimpleNamespace(exp=torch.exp, tanh=torch.tanh, fma_rn=lambda a, b, c: a * b + c)
