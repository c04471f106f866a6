"""Linear layers of a decoder on a GPU with a kernel for few rows, which begins to read weights ahead of its turn."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.device.kinds import kind_of

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton: Any = None
    tl: Any = None
constexpr: Any = int if tl is None else tl.constexpr
_MOST_ROWS = 64  # of the input, for which the kernel is faster than the library's
_TILES = {16: (64, 128, 4), 32: (128, 128, 4), 64: (128, 64, 6)}  # of up to so many rows of the input: the rows and
# columns of the weight that a program of the kernel takes at a time, and how many such tiles are on their way at once
_SUM_HEIGHT, _SUM_WIDTH = 2, 1024  # the same for one row of the input, where a product is a sum
_WHOLE = 128  # rows, and columns, of which a weight must be a multiple
_AHEAD = 4  # pieces of 64 columns of all its rows that a program asks for ahead of its turn


class FewRowsLinear(nn.Linear):
    """A linear layer that multiplies few rows by our kernel.  It has no derivatives by the weight."""

    def forward(self, input: Tensor) -> Tensor:
        return linear_of_few_rows(input, self.weight, self.bias)


def linear_of_few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(x, weight, bias)`, of up to `_MOST_ROWS` rows by our kernel."""
    rows = x.numel() // x.shape[-1]
    if not 0 < rows <= _MOST_ROWS:
        return F.linear(x, weight, bias)
    parts = torch.ops.stagecut.few_rows(x.reshape(rows, -1), weight)
    made = parts[0] if len(parts) == 1 else parts.sum(0)
    made = made if bias is None else made + bias.to(made.dtype)
    return made.to(x.dtype).view(*x.shape[:-1], -1)


def product_with(weight: Tensor) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The function that multiplies by a weight and adds a bias: `linear_of_few_rows` where there is a kernel for it."""
    return linear_of_few_rows if takes(weight) else F.linear


def use_few_rows(modules: Sequence[nn.Module]) -> None:
    """Have the linear layers in the modules of a stage use the kernel, in place, where it takes their weights."""
    for layer in (layer for module in modules for layer in module.modules()):
        if type(layer) is nn.Linear and takes(layer.weight):
            layer.__class__ = FewRowsLinear


def uses_few_rows(module: nn.Module) -> bool:
    """Whether a layer in a module uses the kernel."""
    return any(isinstance(layer, FewRowsLinear) for layer in module.modules())


def takes(weight: Tensor) -> bool:
    """Whether the kernel takes a weight `[out, in]`, and its device runs it."""
    if triton is None or not kind_of(weight.device).launches_early(weight.device):
        return False
    whole = all(size % _WHOLE == 0 for size in weight.shape) and weight.is_contiguous()
    return whole and weight.dtype in (torch.bfloat16, torch.float16)


def splits_of(rows: int, weight: Tensor) -> int:
    """The parts, a power of two, into which the columns of a weight are split so that most processors have work.

    The same for all but one row, or torch would compile for several ranges of them.
    """
    (height, width), splits = weight.shape, 1
    device = torch.get_device_module(weight.device).get_device_properties(weight.device)
    most = device.multi_processor_count * _WHOLE // height if rows > 1 else 1
    while splits * 2 <= most and width % (2 * splits * _WHOLE) == 0 and width >= 4 * splits * _WHOLE:
        splits *= 2
    return splits


def _empty(x: Tensor, weight: Tensor) -> Tensor:
    rows, splits = x.shape[0], splits_of(x.shape[0], weight)
    return x.new_empty(splits, rows, weight.shape[0], dtype=x.dtype if splits == 1 else torch.float32)


def _few_rows(x: Tensor, weight: Tensor) -> Tensor:
    """The products `[splits, rows, out]` of parts of the columns; float32 where there are several."""
    (rows, width), height, x, out = x.shape, len(weight), x.contiguous(), _empty(x, weight)
    if rows == 1:
        sum_one_row[height // _SUM_HEIGHT,](
            x, weight, out, width, _SUM_HEIGHT, _SUM_WIDTH, num_warps=4, launch_pdl=True
        )  # fmt: skip
    else:
        tall = next(most for most in _TILES if rows <= most)
        high, wide, stages = _TILES[tall]
        multiply_few_rows[height // high, len(out)](
            x, weight, out, rows, height, width, width // len(out), tall, high, wide, _AHEAD,
            num_warps=4, num_stages=stages, launch_pdl=True,
        )  # fmt: skip
    return out


def sum_one_row(x, weight, out, width, HEIGHT: constexpr, WIDTH: constexpr):
    """The kernel for one row: HEIGHT rows of the weight times x.

    It is launched before the kernel before it has ended, and meanwhile loads the first of its weights.
    """
    row, column = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    held = weight + row[:, None].to(tl.int64) * width + column[None, :]
    first = tl.load(held, (column < width)[None, :], 0.0).to(tl.float32)
    tl.extra.cuda.gdc_wait()
    tl.extra.cuda.gdc_launch_dependents()
    total = first * tl.load(x + column, column < width, 0.0).to(tl.float32)[None, :]
    for start in range(WIDTH, width, WIDTH):
        there = start + column < width
        given = tl.load(x + start + column, there, 0.0).to(tl.float32)
        total += tl.load(held + start, there[None, :], 0.0).to(tl.float32) * given[None, :]
    tl.store(out + row, tl.sum(total, 1))


def multiply_few_rows(
    x, weight, out, rows, height, width, share,
    ROWS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, AHEAD: constexpr,
):  # fmt: skip
    """The kernel: HEIGHT rows of the weight times x, over `share` of the columns.

    It is launched before the kernel before it has ended, and meanwhile asks for the first of its weights.
    """
    row, low = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT), tl.program_id(1) * share
    line, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    held = weight + row[:, None].to(tl.int64) * width + low
    asked = held + tl.minimum(tl.arange(0, AHEAD) * 64, share - 64)[None, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [asked], dtype=tl.int32, is_pure=False, pack=1
    )
    tl.extra.cuda.gdc_wait()
    tl.extra.cuda.gdc_launch_dependents()
    total = tl.zeros([HEIGHT, ROWS], tl.float32)
    for first in range(0, share, WIDTH):
        weights = tl.load(held + first + column[None, :], eviction_policy="evict_first")
        at = x + line[None, :] * width + low + first + column[:, None]
        given = tl.load(at, (line < rows)[None, :], 0.0)
        total = tl.dot(weights, given, total)
    at = out + tl.program_id(1) * rows * height + line[None, :] * height + row[:, None]
    tl.store(at, total, (line < rows)[None, :])


if triton is not None:
    multiply_few_rows, sum_one_row = triton.jit(multiply_few_rows), triton.jit(sum_one_row)
FEW_ROWS = torch.library.custom_op(
    "stagecut::few_rows", _few_rows, mutates_args=(), schema="(Tensor x, Tensor weight) -> Tensor"
)
FEW_ROWS.register_fake(_empty)
