"""The product of a weight with one row, with what a decoder computes just before and just behind it: one kernel."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton: Any = None
    tl: Any = None
constexpr: Any = int if tl is None else tl.constexpr
_HEIGHT, _WIDTH = 2, 1024  # the rows and columns of the weight that a program takes at a time
_REGISTERS = 56  # of a thread that computes a norm, so that a processor has nine programs in place of eight


def _one_row(
    x: Tensor,
    weight: Tensor,
    norm: Tensor | None = None,
    more: float = 0.0,
    eps: float = 0.0,
    added: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """`x` `[1, in]` times `weight` `[out, in]`: `[1, out]`.

    With `norm` `[in]`, x first has a root mean square of 1, but for `eps`, and is multiplied by `norm` + `more`.
    `added` `[1, out]` is added to the product.  If that is `gated`, the result is silu of its first half, times its
    second half.
    """
    out = _empty(x, weight, norm, more, eps, added, gated)
    write_one_row(x.contiguous(), weight, out, norm, more, eps, None if added is None else added.contiguous(), gated)
    return out


def _empty(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return x.new_empty(1, len(weight) // 2 if others[-1] else len(weight))


def write_one_row(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    norm: Tensor | None = None,
    more: float = 0.0,
    eps: float = 0.0,
    added: Tensor | None = None,
    gated: bool = False,
) -> None:
    """Write the same to `out`, by the kernel."""
    height, width = weight.shape
    limit = {} if norm is None else {"maxnreg": _REGISTERS}
    sum_one_row[height // _HEIGHT,](
        x, weight, out, norm, added, width, height // _HEIGHT, more, eps,
        _HEIGHT, _WIDTH, norm is not None, added is not None, gated, num_warps=4, launch_pdl=True, **limit,
    )  # fmt: skip


def sum_one_row(
    x, weight, out, norm, added, width, half, more, eps,
    HEIGHT: constexpr, WIDTH: constexpr, NORM: constexpr, ADDED: constexpr, GATED: constexpr,
):  # fmt: skip
    """The kernel: HEIGHT rows of the weight times x; of a gated product, one of each half.

    It is launched before the kernel before it has ended, and meanwhile loads the first of its weights.
    """
    line, column = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    row = tl.program_id(0) + line * half if GATED else tl.program_id(0) * HEIGHT + line
    held = weight + row[:, None].to(tl.int64) * width + column[None, :]
    first = tl.load(held, (column < width)[None, :], 0.0).to(tl.float32)
    tl.extra.cuda.gdc_wait()
    tl.extra.cuda.gdc_launch_dependents()
    if NORM:
        factor = tl.load(norm + column, column < width, 0.0).to(tl.float32) + more
    given = tl.load(x + column, column < width, 0.0).to(tl.float32)
    if ADDED:
        further = tl.load(added + row).to(tl.float32)
    if NORM:
        squares = given * given
        given *= factor
    total = first * given[None, :]
    for start in range(WIDTH, width, WIDTH):
        there = start + column < width
        weights = tl.load(held + start, there[None, :], 0.0).to(tl.float32)
        if NORM:
            factor = tl.load(norm + start + column, there, 0.0).to(tl.float32) + more
        given = tl.load(x + start + column, there, 0.0).to(tl.float32)
        if NORM:
            squares += given * given
            given *= factor
        total += weights * given[None, :]
    done = tl.sum(total, 1)
    if NORM:
        done *= tl.rsqrt(tl.sum(squares, 0) / width + eps)
    done = done.to(out.dtype.element_ty).to(tl.float32)  # each operation rounds as it does alone
    if GATED:
        gate, value = tl.sum(tl.where(line == 0, done, 0.0), 0), tl.sum(tl.where(line == 1, done, 0.0), 0)
        gate = (gate / (1 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
        tl.store(out + tl.program_id(0), gate * value)
    else:
        tl.store(out + row, done + further if ADDED else done)


if triton is not None:
    sum_one_row = triton.jit(sum_one_row)
ONE_ROW = torch.library.custom_op(
    "stagecut::one_row",
    _one_row,
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? norm, float more, float eps, Tensor? added, bool gated) -> Tensor",
)
ONE_ROW.register_fake(_empty)
