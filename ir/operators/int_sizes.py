"""Operators whose schemas take sizes as plain ints, such as linspace: recorded with sizes that may change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from ir.operators.facts import aten

_LIBRARY = torch.library.Library("stagecut", "FRAGMENT")


def _series(count: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> torch.Tensor:
    return torch.empty(count, dtype=dtype, device=device)


def _tril_indices(rows: Any, columns: Any, offset: int = 0, dtype: Any = torch.int64, **given: Any) -> torch.Tensor:
    return torch.empty(
        2, _upto(rows + offset, columns) - _upto(offset, columns), dtype=dtype, device=given.get("device")
    )


def _triu_indices(rows: Any, columns: Any, offset: int = 0, dtype: Any = torch.int64, **given: Any) -> torch.Tensor:
    below = _upto(rows + offset - 1, columns) - _upto(offset - 1, columns)
    return torch.empty(2, rows * columns - below, dtype=dtype, device=given.get("device"))


def _upto(rows: Any, columns: Any) -> Any:
    """Elements in the first rows, the i-th of which has min(i, columns), from 1 on."""
    rows = torch.sym_max(rows, 0)
    short = torch.sym_min(rows, columns)
    return short * (short + 1) // 2 + (rows - short) * columns


def istft_result(
    x: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> torch.Tensor:
    """Samples of `[..., frequencies, frames]`, without values; torch's own rule asks for those of the window."""
    made = n_fft + (n_fft // 4 if hop_length is None else hop_length) * (x.shape[-1] - 1)
    samples = length if length is not None else made - 2 * (n_fft // 2) if center else made
    return x.new_empty(*x.shape[:-2], samples, dtype=x.dtype if return_complex else x.dtype.to_real())


_RESULTS: Mapping[OpOverload, Callable[..., torch.Tensor]] = {
    aten.linspace.default: lambda start, end, steps, **given: _series(steps, **given),
    aten.logspace.default: lambda start, end, steps, base=10.0, **given: _series(steps, **given),
    aten.fft_fftfreq.default: lambda n, d=1.0, **given: _series(n, **given),
    aten.fft_rfftfreq.default: lambda n, d=1.0, **given: _series(n // 2 + 1, **given),
    aten.tril_indices.default: _tril_indices,
    aten.triu_indices.default: _triu_indices,
    aten.one_hot.default: lambda x, classes=-1: x.new_empty(*x.shape, classes),
    aten.istft.default: istft_result,
}
"""The results of each operator, without values."""

_FUNCTIONS = {
    torch.linspace: aten.linspace.default,
    torch.logspace: aten.logspace.default,
    torch.fft.fftfreq: aten.fft_fftfreq.default,
    torch.fft.rfftfreq: aten.fft_rfftfreq.default,
    torch.tril_indices: aten.tril_indices.default,
    torch.triu_indices: aten.triu_indices.default,
    torch.istft: aten.istft.default,
    torch.nn.functional.one_hot: aten.one_hot.default,
}


def _defined(op: OpOverload) -> OpOverload:
    """The operator with the same arguments that takes sizes, and quotients of them, which may change."""
    name = op._opname
    schema = re.sub(r"\bint(?=\??\s\w)", "SymInt", str(op._schema).removeprefix("aten::"))
    _LIBRARY.define(re.sub(r"\bfloat (?=d\b)", "Scalar ", schema))
    _LIBRARY.impl(name, op, "CompositeExplicitAutograd")
    torch.library.register_fake(f"stagecut::{name}", _RESULTS[op], lib=_LIBRARY)
    return getattr(torch.ops.stagecut, name).default


_WITH_SIZES = {op: _defined(op) for op in _RESULTS}
STANDS_FOR = {str(made): op for op, made in _WITH_SIZES.items()}
"""torch's operator by the name of the recorded one."""


class IntSizes(TorchFunctionMode):
    """Inside the context, calls of these operators with sizes that may change are recorded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        op = _FUNCTIONS.get(func)
        if op is not None and any(isinstance(a, torch.SymInt) for a in (*args, *(kwargs or {}).values())):
            func = _WITH_SIZES[op]
        return func(*args, **(kwargs or {}))
