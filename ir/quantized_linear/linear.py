"""Linear layers over quantized weights, in a file that stage files import from their own folder."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

import torch
from torch.nn import functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = None
constexpr = int if tl is None else tl.constexpr
MOST_ROWS = 64  # rows of x for which there is a kernel; with more, the weight is dequantized first


def quantized_linear(x, codes, scale, zeros=None, bias=None, bits=0, lowest=0, added=0, step=(1, 1), wide=False):
    """`F.linear(x, weight, bias)` of weights `[rows, columns]`, each (codes - zeros - lowest) * scale, side by side.

    There is a tensor for each weight: `codes` have `bits` each, packed along the columns into words of 32, or are
    numbers `[rows, columns]`.  An element of `scale` is for `step` rows and columns.  `zeros` are packed along the
    rows; `added` is added to their words.  Weights are computed in float32 if they are `wide`, else in the dtype of
    the scale.
    """
    how = {"bits": bits, "lowest": lowest, "added": added, "step": step, "wide": wide}
    if torch.compiler.is_compiling():
        return torch.ops.stagecut.quantized_linear(x, codes, scale, zeros, bias, **how)
    scale = [s if s.dim() == 2 else s.reshape(-1, 1) for s in scale]
    parts = [[None] * len(codes) if part is None else part for part in (codes, scale, zeros, bias)]
    whole = [joined(part) for part in parts]
    if any(one is None and part[0] is not None for one, part in zip(whole, parts, strict=True)):  # they lie anywhere
        return torch.cat([product(x, *one, **how) for one in zip(*parts, strict=True)], -1)
    return product(x, *whole, **how)


def joined(parts):
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


def product(x, codes, scale, zeros, bias, bits, lowest, added, step, wide):
    """The same of one weight: by the kernel, or by plain torch where there is none for it."""
    rows, columns = codes.shape[0], x.shape[-1]
    tall = x.numel() // columns
    if not 0 < tall <= MOST_ROWS or not has_kernel(x, codes):
        weight = dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide)
        return F.linear(x, weight.to(x.dtype), bias)
    words, across = codes.shape[1], codes.stride(1) > 1  # across: what lies side by side in memory is of other rows
    given = x.reshape(tall, words, -1).mT  # the first columns of all words, the second ones, …
    given = given if tall == 1 else given.contiguous()
    height, width = _tile(bits, across, tall, rows, step[1] < columns)
    splits = min(triton.cdiv(512 * height, rows), max(words // (4 * width), 1)) if across or tall > 1 else 1
    out = x.new_empty(splits, tall, rows, dtype=torch.float32 if splits > 1 else x.dtype)
    multiply_codes[triton.cdiv(rows, height), splits](
        given, codes, scale, zeros, bias, out, tall, rows, words, triton.cdiv(words, splits * width) * width,
        *given.stride()[1:], *codes.stride(), *scale.stride(), *((0, 0) if zeros is None else zeros.stride()),
        bits, lowest, added, *step, step[1] >= columns,
        1 if tall == 1 else max(triton.next_power_of_2(tall), 16), height, width,
        zeros is not None, bias is not None and splits == 1, num_warps=8 if tall > 1 and not bits else 4,
    )  # fmt: skip
    out = out[0] if splits == 1 else out.sum(0) if bias is None else out.sum(0) + bias
    return out.to(x.dtype).view(*x.shape[:-1], rows)


def has_kernel(x, codes):
    """Whether the device of x has a kernel for these codes: 8-bit floats are numbers to NVIDIA's GPUs from Ada on."""
    if triton is None or x.device.type == "cpu":
        return False
    target = triton.runtime.driver.active.get_current_target() if codes.dtype.is_floating_point else None
    return target is None or (target.backend != "hip" and target.arch >= 89)


def _tile(bits, across, tall, rows, grouped):
    """The rows of the weight, and the words of codes, that the kernel takes at a time."""
    if tall > 1:
        return (32, 64) if bits else (64, 128)
    if bits:
        return (64, 32) if across else (8, 128)
    return (16, 128) if grouped else (8, 512) if rows > 8192 else (4, 1024)


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


def multiply_codes(
    x, codes, scale, zeros, bias, out, tall, rows, words, share,
    x_place, x_word, code_row, code_word, scale_row, scale_group, zero_row, zero_group,
    BITS: constexpr, LOWEST: constexpr, ADDED: constexpr, STEP: constexpr, GROUP: constexpr, WHOLE: constexpr,
    TALL: constexpr, HEIGHT: constexpr, WIDTH: constexpr, ZEROS: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel: HEIGHT rows of the weight times x `[tall, codes a word, words]`, over `share` of the words."""
    PER: constexpr = 32 // BITS if BITS else 1
    FIT: constexpr = 23 // BITS if BITS else 1  # codes of a word that have room in the 23 bits of a float's fraction
    row, line = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT), tl.arange(0, TALL)
    inside, low = row < rows, tl.program_id(1) * share
    rates = scale + (row // STEP)[:, None] * scale_row
    total = tl.zeros([HEIGHT, WIDTH] if TALL == 1 else [TALL, HEIGHT], tl.float32)
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
        part = total if WHOLE and TALL == 1 else tl.zeros([HEIGHT, WIDTH], tl.float32)
        for place in tl.static_range(PER):
            if BITS:  # a float that is a power of two and the code, whose bits stay where they are
                code = (held >> (place // FIT * FIT * BITS)) & (((1 << BITS) - 1) << (place % FIT * BITS))
                code = (code | ((150 - place % FIT * BITS) << 23)).to(tl.float32, bitcast=True)
                code -= (1 << (23 - place % FIT * BITS)) + least
            else:
                code = held.to(tl.float32)
            at = x + place * x_place + word * x_word
            if TALL == 1 and BITS:
                part += code * tl.load(at, word < words, 0.0).to(tl.float32)[None, :]
            elif TALL == 1:  # loaded as the codes are, not once and moved between threads
                part += code * tl.load(at[None, :] + row[:, None] * 0, there, 0.0).to(tl.float32)
            else:
                seen = (line < tall)[:, None] & (word < words)[None, :]
                given = tl.load(at[None, :] + line[:, None] * (words * PER), seen, 0.0)
                total = tl.dot(given, (code * factor).to(given.dtype).T, total, input_precision="ieee")
        if TALL == 1:
            total = part if WHOLE else total + part * factor
    at = out + tl.program_id(1) * tall * rows
    added = tl.load(bias + row, inside, 0.0).to(tl.float32) if BIAS else tl.zeros([HEIGHT], tl.float32)
    if TALL == 1:
        total = total * whole if WHOLE else total
        tl.store(at + row, tl.sum(total, 1) + added, inside)
    else:
        tl.store(
            at + line[:, None] * rows + row[None, :], total + added[None, :], (line < tall)[:, None] & inside[None, :]
        )


if triton is not None:
    multiply_codes = triton.jit(multiply_codes)


if not hasattr(torch.ops.stagecut, "quantized_linear"):  # an operator, which torch.compile takes as it is
    tensors = "Tensor x, Tensor[] codes, Tensor[] scale, Tensor[]? zeros=None, Tensor[]? bias=None"
    options = "int bits=0, int lowest=0, int added=0, int[] step=[1, 1], bool wide=False"
    torch.library.custom_op(
        "stagecut::quantized_linear", quantized_linear, mutates_args=(), schema=f"({tensors}, {options}) -> Tensor"
    ).register_fake(lambda x, codes, *_, **__: x.new_empty(*x.shape[:-1], sum(len(one) for one in codes)))
