"""Linear layers over quantized weights, in a file that stage files import from their own folder."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from pathlib import Path
from zlib import crc32

import torch
from torch.nn import functional as F

from ir.quantized_linear.column_order import as_it_was, columns_in_order
from ir.quantized_linear.dequantized_weight import dequantized
from ir.quantized_linear.kernel_choice import (
    MOST_ROWS,
    are_rows_of_words,
    copies_ahead,
    has_kernel,
    has_wgmma,
    is_row_of_bytes,
    is_row_of_words,
    order_for,
    without_copies,
)
from ir.quantized_linear.languages import triton
from ir.quantized_linear.launches import one_row, row_of_bytes, row_of_words, rows_of_words, some_rows


def quantized_linear(
    x, codes, scale, zeros=None, bias=None, bits=0, lowest=0, added=0, step=(1, 1), wide=False, ordered=""
):
    """`F.linear(x, weight, bias)` of weights `[rows, columns]`, each (codes - zeros - lowest) * scale, side by side.

    There is a tensor for each weight: `codes` have `bits` each, packed along the columns into words of 32, or are
    numbers `[rows, columns]`.  An element of `scale` is for `step` rows and columns.  `zeros` are packed along the
    rows; `added` is added to their words.  Weights are computed in float32 if they are `wide`, else in the dtype of
    the scale.  In an x that is `ordered` by "words" the first columns of all words come first, then the second ones,
    …; by "pieces" its columns are in the order in which `multiply_rows_of_words` has them.
    """
    how = {"bits": bits, "lowest": lowest, "added": added, "step": step, "wide": wide, "ordered": ordered}
    if torch.compiler.is_compiling():
        if not ordered and x.device.type != "cpu":  # by the kernel that makes x, without one of its own
            how["ordered"] = order_for(x, codes, zeros, bits, lowest, step)
            x = columns_in_order(x, how["ordered"], codes[0].shape[1], bits)
        return getattr(torch.ops.stagecut, PRODUCT)(x, codes, scale, zeros, bias, **how)
    scale = [s if s.dim() == 2 else s.reshape(-1, 1) for s in scale]
    parts = [[None] * len(codes) if part is None else part for part in (codes, scale, zeros, bias)]
    whole = [side_by_side(part) for part in parts]
    if any(one is None and part[0] is not None for one, part in zip(whole, parts, strict=True)):  # they lie anywhere
        return torch.cat([_product(x, *one, **how) for one in zip(*parts, strict=True)], -1)
    return _product(x, *whole, **how)


def side_by_side(parts):
    """The tensors side by side along the first dimension, if that is how they lie in memory; else None."""
    first, *others = parts
    if first is None or not others:
        return first
    end = first.data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.stride() != first.stride():
            return None
        end += len(part) * part.stride(0) * part.element_size()
    if len({part.untyped_storage().data_ptr() for part in parts}) > 1:
        return None
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def _product(x, codes, scale, zeros, bias, bits, lowest, added, step, wide, ordered):
    """The same of one weight: by the kernel, or by plain torch where there is none for it."""
    (rows, words), columns = codes.shape, x.shape[-1]
    tall = x.numel() // columns
    kernel = 0 < tall <= MOST_ROWS and has_kernel(x, codes)
    if kernel and copies_ahead(codes):
        try:
            ahead = _row_ahead if tall == 1 else _rows_ahead
            made = ahead(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered)
        except triton.CompilationError as e:  # its language may change from one triton to the next
            made = without_copies(e, tall)
        if made is not None:
            return made.view(*x.shape[:-1], rows)
    if ordered == "pieces" or not kernel:
        x, ordered = as_it_was(x, ordered, words, bits), ""
    if not kernel:
        weight = dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide)
        return F.linear(x, weight.to(x.dtype), bias)
    one = tall == 1 and codes.stride(1) == 1
    given = (x.reshape(tall, -1, words) if ordered else x.reshape(tall, words, -1).mT).contiguous()
    out = (one_row if one else some_rows)(given, codes, scale, zeros, bias, columns, bits, lowest, added, step)
    return out.view(*x.shape[:-1], rows)


def _row_ahead(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
    """The product of one row by a kernel that copies codes ahead; None where there is none for it."""
    if is_row_of_words(x, codes, bits, lowest, step):
        given = as_it_was(x, ordered, codes.shape[1], bits).contiguous()
        return row_of_words(given, codes, scale, zeros, bias, lowest, added, step[1])
    if is_row_of_bytes(x, codes, zeros, bits, lowest, step):
        given = as_it_was(x, ordered, codes.shape[1], bits).contiguous()
        return row_of_bytes(given, codes, scale, bias, step)
    return None


def _rows_ahead(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
    """The same of several rows."""
    if not are_rows_of_words(x, codes, zeros, bits, lowest, step) or not has_wgmma():
        return None
    if ordered == "words":
        x, ordered = as_it_was(x, ordered, codes.shape[1], bits), ""
    return rows_of_words(x, codes, scale, zeros, bias, bits, lowest, added, step, bool(ordered))


PRODUCT_SCHEMA = (
    "(Tensor x, Tensor[] codes, Tensor[] scale, Tensor[]? zeros=None, Tensor[]? bias=None, "
    'int bits=0, int lowest=0, int added=0, int[] step=[1, 1], bool wide=False, str ordered="") -> Tensor'
)
# An operator, which torch.compile takes as it is.  Artifacts of other versions have files with other ones.
PRODUCT = f"quantized_linear_{crc32(Path(__file__).read_bytes()):08x}"


def like_product(x, codes, *_, **__):
    """A tensor of the shape and the dtype of the product, without values."""
    return x.new_empty(*x.shape[:-1], sum(len(one) for one in codes))


if not hasattr(torch.ops.stagecut, PRODUCT):
    made = torch.library.custom_op(f"stagecut::{PRODUCT}", quantized_linear, mutates_args=(), schema=PRODUCT_SCHEMA)
    made.register_fake(like_product)
