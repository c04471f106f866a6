"""Linear layers of a decoder on a GPU with a kernel for few rows, which begins to read weights ahead of its turn."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
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
_TILES = {16: (64, 128, 4), 32: (64, 128, 4), 64: (128, 64, 6)}  # of up to so many rows of the input: the rows and
# columns of the weight that a program of the kernel takes at a time, and how many such tiles are on their way at once
_SUM_HEIGHT, _SUM_WIDTH = 2, 1024  # the same for one row of the input, where a product is a sum
_WHOLE = 128  # rows, and columns, of which a weight must be a multiple
_MOST_PARTS, _SUMS = 3, 1024  # of a product; the columns that a program of the kernel which adds sums up takes
_AHEAD = 4  # pieces of 64 columns of all its rows that a program asks for ahead of its turn


class FewRowsLinear(nn.Linear):
    """A linear layer that multiplies few rows by our kernel.  It has no derivatives by the weight."""

    def forward(self, input: Tensor) -> Tensor:
        return linear_of_few_rows(input, self.weight, self.bias)


def linear_of_few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(x, weight, bias)`, of up to `_MOST_ROWS` rows by our kernel."""
    return parts_of_few_rows(x, weight, bias, [len(weight)])[0]


def parts_of_few_rows(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[int]) -> Sequence[Tensor]:
    """The parts of so many columns of the same product; each is contiguous unless torch.compile sees to that."""
    rows, shape = x.numel() // x.shape[-1], x.shape[:-1]
    if not 0 < rows <= _MOST_ROWS:
        return _parts(x, weight, bias, sizes)
    sums = torch.ops.stagecut.few_rows(x.reshape(rows, -1), weight)
    is_made = len(sums) == 1 and bias is None and (rows == 1 or len(sizes) == 1)
    if is_made or torch.compiler.is_compiling() or len(sizes) > _MOST_PARTS or x.device.type == "cpu":
        made = sums[0] if len(sums) == 1 else sums.sum(0)
        made = made if bias is None else made + bias.to(made.dtype)
        return _split(made.to(x.dtype).view(*shape, -1), sizes)
    made = x.new_empty(rows * len(weight))
    ends = [*accumulate(sizes)][:-1] + [len(weight)] * (_MOST_PARTS - len(sizes))
    add_sums[rows, triton.cdiv(len(weight), _SUMS)](
        sums, bias, made, rows, len(weight), *ends, len(sums), bias is not None, _SUMS, num_warps=4, launch_pdl=True
    )
    return [part.view(*shape, -1) for part in made.split([rows * size for size in sizes])]


def _parts(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[int]) -> Sequence[Tensor]:
    return _split(F.linear(x, weight, bias), sizes)


def _split(made: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return [part.contiguous() for part in made.split(sizes, -1)]


def parts_with(weight: Tensor) -> Callable[[Tensor, Tensor, Tensor | None, Sequence[int]], Sequence[Tensor]]:
    """The function for the parts of a product: `parts_of_few_rows` where there is a kernel for the weight."""
    return (
        parts_of_few_rows if takes(weight) else lambda x, weight, bias, sizes: _split(F.linear(x, weight, bias), sizes)
    )


def use_few_rows(modules: Sequence[nn.Module]) -> None:
    """Have the linear layers in the modules of a stage use the kernel, in place, where it takes their weights."""
    for layer in (layer for module in modules for layer in module.modules()):
        if type(layer) is nn.Linear and takes(layer.weight):
            layer.__class__ = FewRowsLinear


def uses_few_rows(module: nn.Module) -> bool:
    """Whether a layer in a module uses the kernel."""
    return any(isinstance(layer, FewRowsLinear) for layer in module.modules())


def multiplies_one_row(graph: torch.fx.Graph) -> bool:
    """Whether a product in a graph of torch's operators is by the kernel for one row, as those of one text are."""
    products = [node for node in graph.nodes if node.target is torch.ops.stagecut.few_rows.default]
    rows = [node.args[0].meta["val"].shape[0] for node in products]
    return any(isinstance(count, int) and count == 1 for count in rows)  # others are compiled for any count


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
    tl.extra.cuda.gdc_launch_dependents()
    tl.extra.cuda.gdc_wait()
    total = tl.zeros([HEIGHT, ROWS], tl.float32)
    for first in range(0, share, WIDTH):
        weights = tl.load(held + first + column[None, :], eviction_policy="evict_first")
        at = x + line[None, :] * width + low + first + column[:, None]
        given = tl.load(at, (line < rows)[None, :], 0.0)
        total = tl.dot(weights, given, total)
    at = out + tl.program_id(1) * rows * height + line[None, :] * height + row[:, None]
    tl.store(at, total, (line < rows)[None, :])


def add_sums(
    sums, bias, out, rows, height, first, second, SPLITS: constexpr, BIAS: constexpr, WIDTH: constexpr
):  # fmt: skip
    """The kernel that adds up sums `[splits, rows, height]` and a bias.

    The results are three parts that lie one after the other, which end before `first`, `second` and `height`.
    """
    row, column = tl.program_id(0), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    low = tl.where(column >= second, second, tl.where(column >= first, first, 0))
    size = tl.where(column >= second, height, tl.where(column >= first, second, first)) - low
    there = column < height
    tl.extra.cuda.gdc_launch_dependents()
    tl.extra.cuda.gdc_wait()
    total = tl.load(sums + row * height + column, there, 0.0).to(tl.float32)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(sums + (split * rows + row) * height + column, there, 0.0)
    if BIAS:
        total += tl.load(bias + column, there, 0.0).to(tl.float32)
    tl.store(out + low * rows + row * size + column - low, total, there)


if triton is not None:
    multiply_few_rows, sum_one_row, add_sums = map(triton.jit, (multiply_few_rows, sum_one_row, add_sums))
FEW_ROWS = torch.library.custom_op(
    "stagecut::few_rows", _few_rows, mutates_args=(), schema="(Tensor x, Tensor weight) -> Tensor"
)
FEW_ROWS.register_fake(_empty)
