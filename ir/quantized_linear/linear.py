"""Linear layers over quantized weights, in a file that stage files import from their own folder."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from pathlib import Path
from zlib import crc32

import torch
from torch.nn import functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = None
constexpr = int if tl is None else tl.constexpr
MOST_ROWS = 64  # rows of x for which there is a kernel; with more, the weight is dequantized first


def quantized_linear(
    x, codes, scale, zeros=None, bias=None, bits=0, lowest=0, added=0, step=(1, 1), wide=False, ordered=False
):
    """`F.linear(x, weight, bias)` of weights `[rows, columns]`, each (codes - zeros - lowest) * scale, side by side.

    There is a tensor for each weight: `codes` have `bits` each, packed along the columns into words of 32, or are
    numbers `[rows, columns]`.  An element of `scale` is for `step` rows and columns.  `zeros` are packed along the
    rows; `added` is added to their words.  Weights are computed in float32 if they are `wide`, else in the dtype of
    the scale.  In an x that is `ordered` the first columns of all words come first, then the second ones, ….
    """
    how = {"bits": bits, "lowest": lowest, "added": added, "step": step, "wide": wide, "ordered": ordered}
    if torch.compiler.is_compiling():
        if bits and not ordered and x.device.type != "cpu":  # by the kernel that makes x, without one of its own
            x, how["ordered"] = x.unflatten(-1, (codes[0].shape[1], -1)).mT.flatten(-2), True
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
        if part.data_ptr() != end or not part.is_contiguous():
            return None
        end += part.nbytes
    if len({part.untyped_storage().data_ptr() for part in parts}) > 1:
        return None
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def _product(x, codes, scale, zeros, bias, bits, lowest, added, step, wide, ordered):
    """The same of one weight: by the kernel, or by plain torch where there is none for it."""
    (rows, words), columns = codes.shape, x.shape[-1]
    tall = x.numel() // columns
    if not 0 < tall <= MOST_ROWS or not has_kernel(x, codes):
        x = x.unflatten(-1, (-1, words)).mT.flatten(-2) if ordered else x
        weight = dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide)
        return F.linear(x, weight.to(x.dtype), bias)
    one = tall == 1 and codes.stride(1) == 1
    given = (x.reshape(tall, -1, words) if ordered else x.reshape(tall, words, -1).mT).contiguous()
    out = (_one_row if one else _some_rows)(given, codes, scale, zeros, bias, columns, bits, lowest, added, step)
    return out.view(*x.shape[:-1], rows)


def _one_row(x, codes, scale, zeros, bias, columns, bits, lowest, added, step):
    """A product of x `[1, codes a word, words]` with codes whose words lie one after the other."""
    (rows, words), grouped = codes.shape, step[1] < columns
    height, width, warps = (8, 256, 2) if bits else (4, 512 if rows > 4096 else 1024, 2)
    each = 4 if bits else width // (32 * warps)  # the words that a thread has side by side
    while grouped and step[1] % (each * x.shape[1]):
        each //= 2
    out = x.new_empty(1, rows)
    multiply_row[(triton.cdiv(rows, height),)](
        x, codes, scale, zeros, bias, out, rows, words, 0,
        codes.stride(0), *scale.stride(), *((0, 0) if zeros is None else zeros.stride()),
        bits, lowest, added, *step, not grouped, height, width, each, zeros is not None, bias is not None,
        num_warps=warps,
    )  # fmt: skip
    return out


def _some_rows(x, codes, scale, zeros, bias, columns, bits, lowest, added, step):
    """A product of x `[rows, codes a word, words]`."""
    tall, (rows, words), across = len(x), codes.shape, codes.stride(1) > 1  # across: side by side lie those of rows
    height, width = (64, 32) if across and bits else (32, 64) if bits else (64, 128)
    splits = min(triton.cdiv(512 * height, rows), max(words // (4 * width), 1))
    out = x.new_empty(splits, tall, rows, dtype=torch.float32 if splits > 1 else x.dtype)
    multiply_rows[triton.cdiv(rows, height), splits](
        x, codes, scale, zeros, bias, out, tall, rows, words, triton.cdiv(words, splits * width) * width,
        *codes.stride(), *scale.stride(), *((0, 0) if zeros is None else zeros.stride()),
        bits, lowest, added, *step, step[1] >= columns, max(triton.next_power_of_2(tall), 16), height, width,
        zeros is not None, bias is not None and splits == 1, num_warps=4 if bits else 8,
    )  # fmt: skip
    out = out[0] if splits == 1 else out.sum(0) if bias is None else out.sum(0) + bias
    return out.to(x.dtype)


def has_kernel(x, codes):
    """Whether the device of x has a kernel for these codes: 8-bit floats are numbers to NVIDIA's GPUs from Ada on."""
    if triton is None or x.device.type == "cpu":
        return False
    target = triton.runtime.driver.active.get_current_target() if codes.dtype.is_floating_point else None
    return target is None or (target.backend != "hip" and target.arch >= 89)


def dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide):
    """The weight `[rows, columns]`, in the dtype that it is computed in: codes of up to 8 bits are exact in any."""
    dtype, rows = torch.float32 if wide else scale.dtype, len(codes)
    weight = (unpacked_bytes(codes, bits) if bits else codes).to(dtype)
    if lowest:
        weight -= lowest
    if zeros is not None:
        zeros = (zeros + added).mT.clone(memory_format=torch.contiguous_format)
        zeros = unpacked_bytes(zeros, bits).mT[:rows].to(dtype)
        weight -= zeros.repeat_interleave(step[1], 1)
    for dim, size in enumerate((rows, columns)):
        if scale.shape[dim] > 1 and step[dim] > 1:
            scale = scale.repeat_interleave(step[dim], dim).narrow(dim, 0, size)
    return weight.mul_(scale.to(dtype))


def unpacked_bytes(words, bits):
    """The codes in words of 32 bits, the lowest bits first: [..., n] -> [..., n * 32 / bits]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=words.device)
    return ((words.contiguous().view(torch.uint8).unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)


def multiply_row(
    x, codes, scale, zeros, bias, out, rows, words, nil,
    code_row, scale_row, scale_group, zero_row, zero_group,
    BITS: constexpr, LOWEST: constexpr, ADDED: constexpr, STEP: constexpr, GROUP: constexpr, WHOLE: constexpr,
    HEIGHT: constexpr, WIDTH: constexpr, EACH: constexpr, ZEROS: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel for one row x `[codes a word, words]`: HEIGHT rows of the weight.

    A thread has all of these rows, so that what it loads of x serves them all, and EACH words side by side, which have
    one scale.  `nil` is 0: a number that is known to the compiler would make two instructions of "and" and "or".
    """
    PER: constexpr = 32 // BITS if BITS else 1
    FIT: constexpr = 2 if BITS < 8 else 1  # codes that are moved at once: with two of 8 bits, sums would lose digits
    SHARED: constexpr = WHOLE or (STEP % HEIGHT == 0 and not BITS)  # whether these rows share the scales
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    inside, lines = (row < rows)[:, None], codes + row[:, None].to(tl.int64) * code_row
    rates = scale + (row // STEP)[:, None] * scale_row
    total = tl.zeros([HEIGHT, WIDTH if SHARED and not BITS else WIDTH // EACH], tl.float32)
    for first in range(0, words, WIDTH):
        word = first + tl.arange(0, WIDTH)[None, :]
        some = first + tl.arange(0, WIDTH // EACH)[None, :] * EACH
        spread = word if BITS else tl.max_contiguous(word, [1, 8])  # codes lie in threads as x does: none is moved
        held = tl.load(lines + spread, (word < words) & inside, 0 if BITS else 0.0)
        if not WHOLE and not (SHARED and not BITS):  # on its way while codes are computed with
            rate = tl.load(rates + some * PER // GROUP * scale_group, (some < words) & inside, 0.0).to(tl.float32)
        part = total if SHARED and not BITS else tl.zeros([HEIGHT, WIDTH], tl.float32)
        every, power = tl.zeros([1, WIDTH], tl.float32), tl.zeros([1, WIDTH], tl.float32)
        for place in tl.static_range(PER):
            given = tl.load(x + place * words + word, word < words, 0.0).to(tl.float32)
            if BITS:  # a float that is a power of two and the code, which is moved to the top of its fraction
                if (place // FIT + 1) * FIT * BITS < 23:
                    code = held << (23 - (place // FIT + 1) * FIT * BITS)
                else:
                    code = held >> ((place // FIT + 1) * FIT * BITS - 23)
                code &= ((1 << BITS) - 1) << (23 - (FIT - place % FIT) * BITS)
                code |= nil + ((127 + (FIT - place % FIT) * BITS) << 23)
                code = code.to(tl.float32, bitcast=True)
                power += given * (1 << ((FIT - place % FIT) * BITS))
                every += given
            else:
                code = held.to(tl.float32)
                if SHARED and not WHOLE:
                    at = scale + tl.program_id(0) * HEIGHT // STEP * scale_row + some // GROUP * scale_group
                    factor = tl.load(at, some < words, 0.0).to(tl.float32)[:, :, None]
                    given = tl.reshape(tl.reshape(given, [1, WIDTH // EACH, EACH]) * factor, [1, WIDTH])
            part += code * given
        if SHARED and not BITS:
            total = part
        else:
            part = tl.sum(tl.reshape(part, [HEIGHT, WIDTH // EACH, EACH]), 2)
            if BITS:
                least = LOWEST
                if ZEROS:
                    at = zeros + (row // PER)[:, None] * zero_row + some * PER // GROUP * zero_group
                    packed = tl.load(at, (some < words) & inside, 0) + ADDED
                    least = ((packed >> (row % PER * BITS)[:, None]) & ((1 << BITS) - 1)).to(tl.float32)
                part -= least * tl.sum(tl.reshape(every, [1, WIDTH // EACH, EACH]), 2)
                part -= tl.sum(tl.reshape(power, [1, WIDTH // EACH, EACH]), 2)
            if not WHOLE:
                part *= rate
            total += part
    done = tl.sum(total, 1)
    if WHOLE:
        done *= tl.load(scale + row // STEP * scale_row, row < rows, 0.0).to(tl.float32)
    if BIAS:
        done += tl.load(bias + row, row < rows, 0.0).to(tl.float32)
    tl.store(out + row, done, row < rows)


def multiply_rows(
    x, codes, scale, zeros, bias, out, tall, rows, words, share,
    code_row, code_word, scale_row, scale_group, zero_row, zero_group,
    BITS: constexpr, LOWEST: constexpr, ADDED: constexpr, STEP: constexpr, GROUP: constexpr, WHOLE: constexpr,
    TALL: constexpr, HEIGHT: constexpr, WIDTH: constexpr, ZEROS: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel for x `[tall, codes a word, words]`: HEIGHT rows of the weight, `share` of the words."""
    PER: constexpr = 32 // BITS if BITS else 1
    FIT: constexpr = 23 // BITS if BITS else 1
    row, line = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT), tl.arange(0, TALL)
    inside, low = row < rows, tl.program_id(1) * share
    rates = scale + (row // STEP)[:, None] * scale_row
    total = tl.zeros([TALL, HEIGHT], tl.float32)
    whole = tl.load(rates, inside[:, None], 0.0).to(tl.float32)  # the scales of rows, if all columns share one
    word = low + tl.arange(0, WIDTH)
    lines = codes + row[:, None].to(tl.int64) * code_row
    if BITS:  # the next words are loaded before these are unpacked
        ahead = tl.load(lines + word[None, :] * code_word, (word < words)[None, :] & inside[:, None], 0)
    for first in range(low, tl.minimum(low + share, words), WIDTH):
        word = first + tl.arange(0, WIDTH)
        there, further = (word < words)[None, :] & inside[:, None], word + WIDTH
        if BITS:
            held = ahead
            ahead = tl.load(lines + further[None, :] * code_word, (further < words)[None, :] & inside[:, None], 0)
        else:
            held = tl.load(lines + word[None, :] * code_word, there, 0.0)
        if WHOLE:
            factor = whole
        elif GROUP % (WIDTH * PER) == 0:
            factor = tl.load(rates + first * PER // GROUP * scale_group, inside[:, None], 0.0).to(tl.float32)
        else:
            factor = tl.load(rates + (word * PER // GROUP)[None, :] * scale_group, there, 0.0).to(tl.float32)
        least = LOWEST
        if ZEROS:
            at = zeros + (row // PER)[:, None] * zero_row + (word * PER // GROUP)[None, :] * zero_group
            packed = tl.load(at, there, 0) + ADDED
            least = ((packed >> (row % PER * BITS)[:, None]) & ((1 << BITS) - 1)).to(tl.float32)
        for place in tl.static_range(PER):
            if BITS:
                code = (held >> (place // FIT * FIT * BITS)) & (((1 << BITS) - 1) << (place % FIT * BITS))
                code = (code | ((150 - place % FIT * BITS) << 23)).to(tl.float32, bitcast=True)
                code -= (1 << (23 - place % FIT * BITS)) + least
            else:
                code = held.to(tl.float32)
            at = x + place * words + word[None, :] + line[:, None] * (words * PER)
            given = tl.load(at, (line < tall)[:, None] & (word < words)[None, :], 0.0)
            total = tl.dot(given, (code * factor).to(given.dtype).T, total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + row, inside, 0.0).to(tl.float32)[None, :]
    at = out + tl.program_id(1) * tall * rows + line[:, None] * rows + row[None, :]
    tl.store(at, total, (line < tall)[:, None] & inside[None, :])


if triton is not None:
    multiply_row, multiply_rows = triton.jit(multiply_row), triton.jit(multiply_rows)


PRODUCT_SCHEMA = (
    "(Tensor x, Tensor[] codes, Tensor[] scale, Tensor[]? zeros=None, Tensor[]? bias=None, "
    "int bits=0, int lowest=0, int added=0, int[] step=[1, 1], bool wide=False, bool ordered=False) -> Tensor"
)
# An operator, which torch.compile takes as it is.  Artifacts of other versions have files with other ones.
PRODUCT = f"quantized_linear_{crc32(Path(__file__).read_bytes()):08x}"


def like_product(x, codes, *_, **__):
    """A tensor of the shape and the dtype of the product, without values."""
    return x.new_empty(*x.shape[:-1], sum(len(one) for one in codes))


if not hasattr(torch.ops.stagecut, PRODUCT):
    made = torch.library.custom_op(f"stagecut::{PRODUCT}", quantized_linear, mutates_args=(), schema=PRODUCT_SCHEMA)
    made.register_fake(like_product)
