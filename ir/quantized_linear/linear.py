"""Linear layers over quantized weights, in a file that stage files import from their own folder."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

import warnings
from pathlib import Path
from zlib import crc32

import torch
from torch.nn import functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = None
try:  # a language of triton in which kernels say what each thread has
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

    copy_to_shared = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
except ImportError:
    gluon = None
try:  # and of Hopper's tensor cores
    from triton.experimental.gluon.language.nvidia import hopper
except ImportError:
    hopper = None
constexpr = int if tl is None else tl.constexpr
MOST_ROWS = 64  # rows of x for which there is a kernel; with more, the weight is dequantized first


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
            how["ordered"] = _order_for(x, codes, zeros, bits, lowest, step)
            x = columns_in_order(x, how["ordered"], codes[0].shape[1], bits)
        return getattr(torch.ops.stagecut, PRODUCT)(x, codes, scale, zeros, bias, **how)
    scale = [s if s.dim() == 2 else s.reshape(-1, 1) for s in scale]
    parts = [[None] * len(codes) if part is None else part for part in (codes, scale, zeros, bias)]
    whole = [side_by_side(part) for part in parts]
    if any(one is None and part[0] is not None for one, part in zip(whole, parts, strict=True)):  # they lie anywhere
        return torch.cat([_product(x, *one, **how) for one in zip(*parts, strict=True)], -1)
    return _product(x, *whole, **how)


def _order_for(x, codes, zeros, bits, lowest, step):
    """The order in which the kernel for x, or for any of its number of rows, takes its columns."""
    one, ours = x.numel() == x.shape[-1], gluon is not None and torch.version.hip is None
    if one and (not bits or (ours and all(is_row_of_words(x, c, bits, lowest, step) for c in codes))):
        return ""
    if ours and not one and all(are_rows_of_words(x, c, zeros, bits, lowest, step) for c in codes) and _has_wgmma():
        return "pieces"
    return "words" if bits else ""


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
            made = _without_copies(e, tall)
        if made is not None:
            return made.view(*x.shape[:-1], rows)
    if ordered == "pieces" or not kernel:
        x, ordered = as_it_was(x, ordered, words, bits), ""
    if not kernel:
        weight = dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide)
        return F.linear(x, weight.to(x.dtype), bias)
    one = tall == 1 and codes.stride(1) == 1
    given = (x.reshape(tall, -1, words) if ordered else x.reshape(tall, words, -1).mT).contiguous()
    out = (_one_row if one else _some_rows)(given, codes, scale, zeros, bias, columns, bits, lowest, added, step)
    return out.view(*x.shape[:-1], rows)


def _row_ahead(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
    """The product of one row by a kernel that copies codes ahead; None where there is none for it."""
    if is_row_of_words(x, codes, bits, lowest, step):
        given = as_it_was(x, ordered, codes.shape[1], bits).contiguous()
        return _row_of_words(given, codes, scale, zeros, bias, lowest, added, step[1])
    if is_row_of_bytes(x, codes, zeros, bits, lowest, step):
        given = as_it_was(x, ordered, codes.shape[1], bits).contiguous()
        return _row_of_bytes(given, codes, scale, bias, step)
    return None


def _rows_ahead(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
    """The same of several rows."""
    if not are_rows_of_words(x, codes, zeros, bits, lowest, step) or not _has_wgmma():
        return None
    if ordered == "words":
        x, ordered = as_it_was(x, ordered, codes.shape[1], bits), ""
    return _rows_of_words(x, codes, scale, zeros, bias, bits, lowest, added, step, bool(ordered))


def _without_copies(error, tall):
    """Have the other kernels take several rows, or any, from now on: the one for several rows needs more of gluon."""
    global gluon, hopper
    gluon, hopper = gluon if tall > 1 else None, None
    which = "the kernel for several rows" if tall > 1 else "the kernels that copy codes ahead"
    warnings.warn(f"triton {triton.__version__} does not compile {which}: {error}", stacklevel=2)


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


def copies_ahead(codes):
    """Whether the device has the kernels that copy codes into shared memory before their turn, and they take these."""
    if gluon is None or codes.stride(1) != 1 or codes.stride(0) % 16 or codes.data_ptr() % 16:
        return False
    return _arch() >= 80


def _arch():
    """The architecture of one of NVIDIA's GPUs, such as 90; 0 of other devices, which have names for theirs."""
    arch = triton.runtime.driver.active.get_current_target().arch
    return arch if isinstance(arch, int) else 0


def is_row_of_words(x, codes, bits, lowest, step):
    """Whether it is a product for `multiply_row_of_words`, where there are such kernels."""
    (rows, words), columns = codes.shape, x.shape[-1]
    even = rows % 16 == 0 and words % 16 == 0 and step[0] == 1 and (step[1] % 128 == 0 or step[1] >= columns)
    halves = x.dtype in (torch.bfloat16, torch.float16)
    return x.numel() == columns and bits == 4 and even and 0 <= lowest < 64 and halves


def is_row_of_bytes(x, codes, zeros, bits, lowest, step):
    """The same for `multiply_row_of_bytes`."""
    (rows, columns), whole = codes.shape, step[1] >= x.shape[-1]
    even = rows % 4 == 0 and columns % 512 == 0 and (whole or (step[1] % 16 == 0 and step[0] % 4 == 0))
    return x.numel() == columns and not bits and codes.element_size() == 1 and even and zeros is None and not lowest


def are_rows_of_words(x, codes, zeros, bits, lowest, step):
    """The same for `multiply_rows_of_words`, where there are Hopper's tensor cores."""
    (rows, words), columns = codes.shape, x.shape[-1]
    halves = x.dtype in (torch.bfloat16, torch.float16)
    even = rows % 64 == 0 and codes.stride(1) == 1 and (step[1] % 128 == 0 or step[1] >= columns)
    if bits == 4:
        return halves and even and words % 32 == 0 and step[0] == 1 and 0 <= lowest < 64
    floats = codes.dtype == torch.float8_e4m3fn and zeros is None and not lowest
    return halves and even and floats and columns % 128 == 0


def _has_wgmma():
    """Whether the device has instructions that multiply a weight in registers by an x in shared memory."""
    return hopper is not None and _arch() == 90


# As torch.compiler.assume_constant_result has it be: torch.compile calls it, and does not look into triton.
vars(_has_wgmma).update(_dynamo_marked_constant=True)  # importing that takes seconds


def _row_of_words(x, codes, scale, zeros, bias, lowest, added, group):
    """A product of x `[columns]` with codes of 4 bits, by tensor cores: codes are exact in the dtype of x."""
    (rows, words), out = codes.shape, x.new_empty(1, len(codes))
    warps = next(most for most in ((4 if rows > 16384 else 8), 4, 2, 1) if words // 16 % most == 0)
    base, one, kind = (0x4300, 0x3F80, "bf16") if x.dtype == torch.bfloat16 else (0x6400, 0x3C00, "f16")
    early = _arch() >= 90
    multiply_row_of_words[rows // 16,](
        x, codes, scale, zeros, bias, out, words, codes.stride(0), *scale.stride(),
        *((0, 0) if zeros is None else zeros.stride()), base + lowest, added, group,
        _unpacking(kind, base, one), warps, early, zeros is not None, bias is not None,
        num_warps=warps, launch_pdl=early,
    )  # fmt: skip
    return out


def _unpacking(kind, base, one):
    """The instructions that make numbers of two words of 8 codes, less a pair that the last operands are.

    The first four pairs are of the codes 0 and 4, 1 and 5, … of the first word, the others of those of the second.
    """
    lines = [".reg .b32 t, one;", f"mov.b32 one, {one * 0x10001};"]
    for place in range(8):
        lines.append(f"shr.b32 t, ${8 + place // 4}, {place % 4 * 4};")
        lines.append(f"lop3.b32 t, t, 0x000f000f, {base * 0x10001}, 0xea;")  # (t & mask) | base
        lines.append(f"fma.rn.{kind}x2 ${place}, t, one, $10;")
    return "{ " + " ".join(lines) + " }"


def _row_of_bytes(x, codes, scale, bias, step):
    """A product of x `[columns]` with numbers of 8 bits."""
    (rows, columns), out = codes.shape, x.new_empty(1, len(codes))
    warps = next(most for most in (4, 2, 1) if columns % (512 * most) == 0)
    early = _arch() >= 90
    multiply_row_of_bytes[rows // 4,](
        x, codes, scale, bias, out, columns, codes.stride(0), *scale.stride(),
        *step, step[1] >= columns, warps, early, bias is not None, num_warps=warps, launch_pdl=early,
    )  # fmt: skip
    return out


def _rows_of_words(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
    """A product of several rows x with codes of 4 bits or with floats of 8."""
    codes = codes if bits else codes.view(torch.int32)
    (rows, words), columns = codes.shape, x.shape[-1]
    x = x.reshape(-1, columns).contiguous()
    x = x.clone() if x.data_ptr() % 16 else x
    height, warps, depth, most, overlap = _tile_of_rows(len(x), rows, bits, ordered)
    tall, whole = max(triton.next_power_of_2(len(x)), 8), step[1] >= columns
    splits = max(min(most * height // rows, words // 64), 1)
    base, one, kind = (0x4300, 0x3F80, "bf16") if x.dtype == torch.bfloat16 else (0x6400, 0x3C00, "f16")
    out = x.new_empty(splits, len(x), rows, dtype=torch.float32 if splits > 1 else x.dtype)
    multiply_rows_of_words[rows // height, splits](
        x, codes, scale, zeros, bias if splits == 1 else None, out, len(x), rows, words // 32, codes.stride(0),
        *scale.stride(), *((0, 0) if zeros is None else zeros.stride()), base + lowest, added,
        step[0] if step[0] < rows else 1 << 30, 1 << 30 if whole else step[1], whole,
        _unpacking(kind, base, one) if bits else _unpacking_bytes(kind), bool(bits), tall, height, depth,
        _layout_of_rows(tall, bits, warps, ordered), ordered, overlap, warps, zeros is not None,
        bias is not None and splits == 1, num_warps=warps, launch_pdl=True,
    )  # fmt: skip
    if splits == 1:
        return out[0]
    made = x.new_empty(len(x), rows)
    add_parts[triton.cdiv(made.numel(), 1024),](
        out, bias, made, made.numel(), rows, splits, 1024, bias is not None, num_warps=4, launch_pdl=True
    )
    return made


def _tile_of_rows(tall, rows, bits, ordered):
    """The rows of the weight and the warps of a program, the depth of its ring, the programs, and whether they overlap.

    As they were measured on H200.  There a product runs while the next numbers are unpacked.
    """
    small = tall <= 8 or (tall <= 16 and not bits and not ordered) or rows % 128
    return (64, 4, 4, 396, True) if small else (128, 8, 3, 264, False)


def _layout_of_rows(tall, bits, warps, ordered):
    """The threads that load 8 columns each of x, of two pieces, so that they store them to banks of their own."""
    columns = 256 if bits else 128
    if ordered:
        return gl.BlockedLayout([1, 8], [256 // columns, columns // 8], [warps, 1], [1, 0])
    lanes = [[0, 8], [0, 16], [0, 32], *([[0, 64]] if bits else [[2, 0]]), [4, 0]]
    others = [[0, columns // 2]] + [[n, 0] for n in (1, 2, 4, 8, 16, 32) if n < tall and [n, 0] not in lanes]
    high = warps.bit_length() - 1
    along = others[:high] + [[0, 0]] * (high - len(others))
    return gl.DistributedLinearLayout([[0, 1], [0, 2], [0, 4], *others[high:]], lanes, along, [], [tall, columns])


def _unpacking_bytes(kind):
    """The instructions that make numbers of two words of 4 floats of 8 bits, a pair of each word in turn."""
    lines = [".reg .b16 a, b, l, h; .reg .b32 f; .reg .f32 u, v;"]
    for word in range(2):
        lines.append(f"mov.b32 {{a, b}}, ${4 + word};")
        for pair, half in enumerate("ab"):
            if kind == "f16":
                lines.append(f"cvt.rn.f16x2.e4m3x2 ${2 * pair + word}, {half};")
                continue
            lines.append(f"cvt.rn.f16x2.e4m3x2 f, {half}; mov.b32 {{l, h}}, f; cvt.f32.f16 u, l; cvt.f32.f16 v, h;")
            lines.append(f"cvt.rn.bf16x2.f32 ${2 * pair + word}, v, u;")
    return "{ " + " ".join(lines) + " }"


# By the bits of codes: the digits that number the columns of 16 words, and in which order those of a piece have them.
_DIGITS = {4: ((4, 2, 2, 2, 2, 2), (-2, -1, -4, -5, -6, -3)), 0: ((4, 2, 2, 2, 2), (-2, -3, -4, -5, -1))}


def columns_in_order(x, ordered, words, bits):
    """x `[…, columns]` with its columns ordered so."""
    if ordered == "words":
        return x.unflatten(-1, (words, -1)).mT.flatten(-2)
    return _permuted(x, *_DIGITS[bits]) if ordered else x


def as_it_was(x, ordered, words, bits):
    """The same x before its columns were ordered so."""
    if ordered == "words":
        return x.unflatten(-1, (-1, words)).mT.flatten(-2)
    if not ordered:
        return x
    digits, order = _DIGITS[bits]
    back = [order.index(place - len(order)) - len(order) for place in range(len(order))]
    return _permuted(x, [digits[place] for place in order], back)


def _permuted(x, digits, order):
    """x with the digits of its columns in another order, within as many columns as they number."""
    return x.unflatten(-1, (-1, *digits)).permute(*range(x.dim()), *order).flatten(-1 - len(order))


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
    return not codes.dtype.is_floating_point or _arch() >= 89


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


def multiply_row_of_words(
    x, codes, scale, zeros, bias, out, words, code_row, scale_row, scale_group, zero_row, zero_group,
    LEAST: constexpr, ADDED: constexpr, GROUP: constexpr,
    UNPACKING: constexpr, WARPS: constexpr, EARLY: constexpr, ZEROS: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel for one row x `[words * 8]` and codes of 4 bits: 16 rows of the weight.

    Each warp has 16 words of all these rows at a time, which share a scale, and the next ones on their way.  A thread
    has two rows and four words, as tensor cores want them.  Of their 8 columns only the first is x, the others are 0.
    """
    READ: gl.constexpr = gl.BlockedLayout([1, 1, 4], [1, 8, 4], [WARPS, 1, 1], [2, 1, 0])
    GIVEN: gl.constexpr = gl.BlockedLayout([1, 1, 1, 32], [1, 8, 4, 1], [WARPS, 1, 1, 1], [3, 2, 1, 0])
    MADE: gl.constexpr = gl.NVMMADistributedLayout([2, 0], [WARPS, 1, 1], [1, 16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, MADE, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, MADE, 2)
    low = gl.program_id(0) * 16
    piece, row, word = _along(WARPS, 0, READ), low + _along(16, 1, READ), _along(16, 2, READ)
    held = codes + row.to(gl.int64) * code_row + (piece * 16 + word)
    rates = scale + (low + _along(16, 1, MADE)) * scale_row
    turn, shift = _along(WARPS, 0, MADE), row % 8 * 4
    column, every = _axis(8, 1, GIVEN), _axis(WARPS, 0, GIVEN) * 128 + _axis(4, 2, GIVEN) * 32 + _axis(32, 3, GIVEN)
    given, first = x + (every + column * 0), column + every * 0 == 0
    ring = gl.allocate_shared_memory(gl.int32, [3, WARPS, 16, 16], gl.SwizzledSharedLayout(1, 1, 1, [2, 1, 0]))
    for ahead in gl.static_range(2):
        _copy_ahead(ring, held, ahead * WARPS * 16, words, ahead)
    rate = gl.load(rates + turn * 128 // GROUP * scale_group)
    _begin_early(EARLY)
    total = gl.full([WARPS, 16, 8], 0.0, gl.float32, MADE)
    for at in range(0, words, WARPS * 16):
        now, step = rate.to(gl.float32), at // (WARPS * 16)
        some = _split_codes(gl.load(given + at * 8, first, 0.0))
        if at + WARPS * 16 < words:
            rate = gl.load(rates + (at // 16 + WARPS + turn) * 128 // GROUP * scale_group)
        least = gl.full([WARPS, 16, 16], LEAST, gl.int32, READ)
        if ZEROS:
            lows = gl.load(zeros + row // 8 * zero_row + (at // 16 + piece) * 128 // GROUP * zero_group) + ADDED
            least += (lows >> shift) & 15
        async_copy.wait_group(1)
        packed = ring.index(step % 3).load(READ)
        _copy_ahead(ring, held, at + 2 * WARPS * 16, words, (step + 2) % 3)
        less = (least | 0x8000) * 0x10001
        numbers = gl.inline_asm_elementwise(
            UNPACKING, "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r", [packed, less],
            dtype=(x.dtype.element_ty,) * 8, is_pure=True, pack=2,
        )  # fmt: skip
        part = gl.full([WARPS, 16, 8], 0.0, gl.float32, MADE)
        for place in gl.static_range(8):
            number = gl.convert_layout(_as_operand(numbers[place]), LEFT, assert_trivial=True)
            one = gl.convert_layout(_as_operand(some[place]).permute([0, 2, 1]), RIGHT, assert_trivial=True)
            part = mma_v2(number, one, part)
        total += part * now
    made = gl.sum(gl.sum(total, 2), 0)
    line = low + gl.arange(0, 16, made.type.layout)
    if BIAS:
        made += gl.load(bias + line).to(gl.float32)
    gl.store(out + line, made.to(out.dtype.element_ty))


def multiply_row_of_bytes(
    x, codes, scale, bias, out, columns, code_row, scale_row, scale_group,
    STEP: constexpr, GROUP: constexpr, WHOLE: constexpr, WARPS: constexpr, EARLY: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel for one row x `[columns]` and numbers of 8 bits: 4 rows of the weight.

    A thread has 16 columns of all these rows at a time, which share a scale if `columns` do not, and the next ones on
    their way.
    """
    READ: gl.constexpr = gl.BlockedLayout([1, 16], [1, 32], [1, WARPS], [1, 0])
    FOLDED: gl.constexpr = gl.BlockedLayout([1, 1, 16], [1, 32, 1], [1, WARPS, 1], [2, 1, 0])
    SUMS: gl.constexpr = gl.SliceLayout(2, FOLDED)
    WIDTH: gl.constexpr = WARPS * 512
    low, column = gl.program_id(0) * 4, gl.arange(0, WIDTH, gl.SliceLayout(0, READ))
    row = low + gl.arange(0, 4, gl.SliceLayout(1, READ))[:, None]
    held = codes + row.to(gl.int64) * code_row + column[None, :]
    places = gl.arange(0, WARPS * 32, gl.SliceLayout(0, SUMS)) * 16
    ring = gl.allocate_shared_memory(codes.dtype.element_ty, [3, 4, WIDTH], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    for ahead in gl.static_range(2):
        _copy_ahead(ring, held, ahead * WIDTH, columns, ahead)
    _begin_early(EARLY)
    total = gl.full([4, WARPS * 32], 0.0, gl.float32, SUMS)
    for at in range(0, columns, WIDTH):
        given, step = gl.load(x + at + column).to(gl.float32), at // WIDTH
        if not WHOLE:
            rate = gl.load(scale + low // STEP * scale_row + (at + places) // GROUP * scale_group).to(gl.float32)
        async_copy.wait_group(1)
        numbers = ring.index(step % 3).load(READ)
        _copy_ahead(ring, held, at + 2 * WIDTH, columns, (step + 2) % 3)
        part = (numbers.to(gl.float32) * given[None, :]).reshape([4, WARPS * 32, 16])
        part = gl.convert_layout(gl.sum(part, 2), SUMS, assert_trivial=True)
        total += part if WHOLE else part * rate[None, :]
    made = gl.sum(total, 1)
    line = low + gl.arange(0, 4, made.type.layout)
    if WHOLE:
        made *= gl.load(scale + line // STEP * scale_row).to(gl.float32)
    if BIAS:
        made += gl.load(bias + line).to(gl.float32)
    gl.store(out + line, made.to(out.dtype.element_ty))


def multiply_rows_of_words(
    x, codes, scale, zeros, bias, out, tall, rows, stages, code_row, scale_row, scale_group, zero_row, zero_group,
    LEAST: constexpr, ADDED: constexpr, STEP: constexpr, GROUP: constexpr, WHOLE: constexpr,
    UNPACKING: constexpr, FOUR: constexpr, TALL: constexpr, HEIGHT: constexpr, DEPTH: constexpr, GIVEN: constexpr,
    ORDERED: constexpr, OVERLAP: constexpr, WARPS: constexpr, ZEROS: constexpr, BIAS: constexpr,
):  # fmt: skip
    """The kernel for several rows x `[tall, columns]`: HEIGHT rows of the weight, a share of the columns.

    A stage is 32 words of all these rows, in two pieces of 16.  A thread has two rows and four words of a piece: with x
    in their order, their numbers are what tensor cores multiply, and come there from registers.  Sums of the columns
    that share a scale are scaled.
    """
    PIECE: gl.constexpr = 128 if FOUR else 64  # columns
    STRIPS: gl.constexpr = HEIGHT // 16
    MADE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, TALL, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, MADE, 2)
    READ: gl.constexpr = gl.BlockedLayout([1, 1, 4], [1, 8, 4], [WARPS, 1, 1], [2, 1, 0])
    BOTH: gl.constexpr = gl.BlockedLayout([2, 1, 1, 4], [1, 1, 8, 4], [1, WARPS, 1, 1], [3, 0, 2, 1])
    LINES: gl.constexpr = gl.SliceLayout(2, READ)
    CHAIN: gl.constexpr = WHOLE and OVERLAP  # a product runs while the numbers of the next piece are unpacked
    low, part = gl.program_id(0) * HEIGHT, gl.program_id(1)
    first, end = part * stages // gl.num_programs(1), (part + 1) * stages // gl.num_programs(1)
    held = codes + (low + _axis(STRIPS, 1, BOTH) * 16 + _axis(16, 2, BOTH)).to(gl.int64) * code_row
    held += _axis(2, 0, BOTH) * 16 + _axis(16, 3, BOTH)
    ring = gl.allocate_shared_memory(
        gl.int32, [DEPTH, 2, STRIPS, 16, 16], gl.SwizzledSharedLayout(1, 1, 1, [3, 2, 1, 0])
    )
    given_ring = gl.allocate_shared_memory(
        x.dtype.element_ty, [DEPTH if ORDERED else 2, TALL, 2 * PIECE], gl.NVMMASharedLayout(128, 16, rank=2)
    )
    for ahead in gl.static_range(DEPTH - 1):
        _ask_ahead(ring, held, (first + ahead) * 32, end * 32, ahead, None)
        if not ORDERED:
            async_copy.commit_group()
    line = low + gl.arange(0, HEIGHT, gl.SliceLayout(1, MADE))
    rates = scale + line // STEP * scale_row
    strip = low + gl.arange(0, STRIPS, gl.SliceLayout(1, LINES))[:, None] * 16
    strip += gl.arange(0, 16, gl.SliceLayout(0, LINES))[None, :]
    if not WHOLE:
        next_rate = _of_pieces(rates, first, PIECE, GROUP, scale_group)
    if ZEROS:
        next_lows = _of_pieces(zeros + strip // 8 * zero_row, first, PIECE, GROUP, zero_group)
    _begin_early(True, False)
    row, column = gl.arange(0, TALL, gl.SliceLayout(1, GIVEN)), gl.arange(0, 2 * PIECE, gl.SliceLayout(0, GIVEN))
    given, there = x + row[:, None] * (stages * 2 * PIECE) + column[None, :], (row < tall)[:, None]
    if ORDERED:
        for ahead in gl.static_range(DEPTH - 1):
            at = (first + ahead) * 2 * PIECE
            _copy_ahead(given_ring, given, at, end * 2 * PIECE, ahead, there)
    else:
        loaded = gl.load(given + first * (2 * PIECE), there, 0.0)
    total = gl.full([HEIGHT, TALL], 0.0, gl.float32, MADE)
    if CHAIN:
        total, last = hopper.warpgroup_mma_init(total), gl.full([HEIGHT, PIECE], 0.0, x.dtype.element_ty, LEFT)
    for stage in range(first, end):
        turn, further = stage - first, gl.minimum(stage + 1, end - 1)
        _ask_ahead(ring, held, (stage + DEPTH - 1) * 32, end * 32, (turn + DEPTH - 1) % DEPTH, None)
        if ORDERED:
            at = (stage + DEPTH - 1) * 2 * PIECE
            _copy_ahead(given_ring, given, at, end * 2 * PIECE, (turn + DEPTH - 1) % DEPTH, there)
            async_copy.wait_group(DEPTH - 1)
            hopper.fence_async_shared()
        else:
            async_copy.commit_group()
            given_ring.index(turn % 2).store(_put_in_pieces(loaded, FOUR))
            hopper.fence_async_shared()
            async_copy.wait_group(DEPTH - 1)
            loaded = gl.load(given + further * (2 * PIECE), there, 0.0)
        words = ring.index(turn % DEPTH).load(BOTH).permute([1, 2, 3, 0]).split()
        here = given_ring.index(turn % (DEPTH if ORDERED else 2))
        if not WHOLE:
            rate = next_rate[0].to(gl.float32), next_rate[1].to(gl.float32)
            next_rate = _of_pieces(rates, further, PIECE, GROUP, scale_group)
        if ZEROS:
            lows = next_lows
            next_lows = _of_pieces(zeros + strip // 8 * zero_row, further, PIECE, GROUP, zero_group)
        some = ()
        for piece in gl.static_range(2):
            least = gl.full([STRIPS, 16], LEAST, gl.int32, LINES)
            if ZEROS:
                least += ((lows[piece] + ADDED) >> (strip % 8 * 4)) & 15
            word = gl.convert_layout(words[piece], READ, assert_trivial=True)
            left = gl.convert_layout(_unpacked(word, least, UNPACKING, FOUR, x), LEFT, assert_trivial=True)
            right = here.slice(piece * PIECE, PIECE, dim=1).permute([1, 0])
            if CHAIN:
                before, _ = hopper.warpgroup_mma_wait(0, deps=[total, last])
                total, last = hopper.warpgroup_mma(left, right, before, is_async=True), left
            elif WHOLE:
                made = hopper.warpgroup_mma(left, right, total, is_async=True)
                total = hopper.warpgroup_mma_wait(0, deps=[made])
            else:
                total, some = _piece_added(total, some, left, right, rate, piece, FOUR, OVERLAP)
    if CHAIN:
        total, _ = hopper.warpgroup_mma_wait(0, deps=[total, last])
    if WHOLE:
        total *= gl.load(rates).to(gl.float32)[:, None]
    if BIAS:
        total += gl.load(bias + line).to(gl.float32)[:, None]
    row = gl.arange(0, TALL, gl.SliceLayout(0, MADE))[None, :]
    gl.store(out + (part * tall * rows + row * rows + line[:, None]), total.to(out.dtype.element_ty), row < tall)


def _of_pieces(at, stage, PIECE: constexpr, GROUP: constexpr, step):
    """Scales or zeros of the two pieces of a stage: the same for both if their groups are so large."""
    one = gl.load(at + stage * (2 * PIECE) // GROUP * step)
    two = one
    if GROUP % (2 * PIECE):
        two = gl.load(at + (stage * (2 * PIECE) + PIECE) // GROUP * step)
    return one, two


def _unpacked(word, least, UNPACKING: constexpr, FOUR: constexpr, x):
    """The numbers `[strips * 16, columns]` of words `[strips, 16, 16]`, as each thread has them."""
    strips: gl.constexpr = word.shape[0]
    if FOUR:
        less = ((least | 0x8000) * 0x10001)[:, :, None] + word * 0
        n = gl.inline_asm_elementwise(
            UNPACKING, "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r", [word, less],
            dtype=(x.dtype.element_ty,) * 8, is_pure=True, pack=2,
        )  # fmt: skip
        one, two = gl.join(gl.join(n[0], n[4]), gl.join(n[1], n[5])), gl.join(gl.join(n[2], n[6]), gl.join(n[3], n[7]))
        made = gl.join(one, two).reshape([strips, 16, 4, 2, 2, 2, 2, 2])  # the last three: lowest bits first
        made = made.permute([0, 1, 7, 6, 5, 3, 2, 4]).reshape([strips * 16, 128])
    else:
        n = gl.inline_asm_elementwise(
            UNPACKING, "=r,=r,=r,=r,r,r", [word], dtype=(x.dtype.element_ty,) * 4, is_pure=True, pack=2
        )
        made = gl.join(gl.join(n[0], n[1]), gl.join(n[2], n[3])).reshape([strips, 16, 4, 2, 2, 2, 2])
        made = made.permute([0, 1, 6, 5, 3, 2, 4]).reshape([strips * 16, 64])
    return made


def _piece_added(total, some, left, right, rate, piece: constexpr, FOUR: constexpr, OVERLAP: constexpr):
    """The sums with those of a piece, or of both after the second; `some` is kept from the first one to the second."""
    none = gl.full(total.shape, 0.0, gl.float32, total.type.layout)
    if not FOUR:  # a scale is for both
        made = hopper.warpgroup_mma(left, right, none if piece == 0 else some, use_acc=piece != 0, is_async=True)
        some = hopper.warpgroup_mma_wait(0, deps=[made])
        if piece == 1:
            total += some * rate[0][:, None]
    else:
        made = hopper.warpgroup_mma(left, right, none, use_acc=False, is_async=True)
        if not OVERLAP:
            total += hopper.warpgroup_mma_wait(0, deps=[made]) * rate[piece][:, None]
        elif piece == 0:
            some = made, left
        else:
            before, _ = hopper.warpgroup_mma_wait(1, deps=[some[0], some[1]])
            total += before * rate[0][:, None]
            now, _ = hopper.warpgroup_mma_wait(0, deps=[made, left])
            total += now * rate[1][:, None]
    return total, some


def _put_in_pieces(x, FOUR: constexpr):
    """x `[rows, columns of two pieces]` with its columns ordered by pieces."""
    tall: gl.constexpr = x.shape[0]
    if FOUR:
        made = x.reshape([tall, 2, 4, 2, 2, 2, 2, 2]).permute([0, 1, 6, 7, 4, 3, 2, 5]).reshape([tall, 256])
    else:
        made = x.reshape([tall, 2, 4, 2, 2, 2, 2]).permute([0, 1, 5, 4, 3, 2, 6]).reshape([tall, 128])
    return made


def add_parts(parts, bias, out, size, rows, SPLITS: constexpr, WIDTH: constexpr, BIAS: constexpr):
    """The kernel that adds what programs made of their shares of the columns."""
    at = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    tl.extra.cuda.gdc_launch_dependents()
    tl.extra.cuda.gdc_wait()
    total = tl.load(parts + at, at < size, 0.0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(parts + split * size + at, at < size, 0.0)
    if BIAS:
        total += tl.load(bias + at % rows, at < size, 0.0).to(tl.float32)
    tl.store(out + at, total, at < size)


def _ask_ahead(ring, held, first, end, place, there):
    """Asks for what is from `first` on, if there is any, to be copied to a place of the ring."""
    if first < end:
        copy_to_shared(ring.index(place), held + first, mask=there)


def _copy_ahead(ring, held, first, end, place, there=None):
    """The same, as the last one of a group."""
    _ask_ahead(ring, held, first, end, place, there)
    async_copy.commit_group()


def _begin_early(EARLY: constexpr, WAITS_FIRST: constexpr = True):
    """Waits for the kernel before this one, if this one was launched before it ended, and lets the next one begin."""
    if EARLY:
        wait: gl.constexpr = "griddepcontrol.wait; mov.u32 $0, 0;"
        go: gl.constexpr = "griddepcontrol.launch_dependents; mov.u32 $0, 0;"
        first: gl.constexpr = wait if WAITS_FIRST else go
        then: gl.constexpr = go if WAITS_FIRST else wait
        gl.inline_asm_elementwise(first, "=r", [], dtype=gl.int32, is_pure=False, pack=1)
        gl.inline_asm_elementwise(then, "=r", [], dtype=gl.int32, is_pure=False, pack=1)


def _along(size: constexpr, dim: constexpr, layout: constexpr):
    """The numbers from 0 on along one of three dimensions."""
    if dim == 0:
        return gl.arange(0, size, gl.SliceLayout(1, gl.SliceLayout(2, layout)))[:, None, None]
    elif dim == 1:
        return gl.arange(0, size, gl.SliceLayout(0, gl.SliceLayout(2, layout)))[None, :, None]
    else:
        return gl.arange(0, size, gl.SliceLayout(0, gl.SliceLayout(1, layout)))[None, None, :]


def _axis(size: constexpr, dim: constexpr, layout: constexpr):
    """The numbers from 0 on along one of four dimensions."""
    if dim == 3:
        return _along(size, 2, gl.SliceLayout(0, layout))[None, :, :, :]
    else:
        return _along(size, dim, gl.SliceLayout(3, layout))[:, :, :, None]


def _split_codes(tile):
    """Of `[…, 8, 4, 4 words of 8]` the numbers `[…, 8, 16]` of each of eight pairs of codes, as they are unpacked."""
    tile = tile.reshape([tile.shape[0], 8, 4, 2, 2, 2, 2, 2]).permute([0, 1, 2, 3, 5, 7, 6, 4])
    halves = tile.split()
    quarters = halves[0].split() + halves[1].split()
    eighths = quarters[0].split() + quarters[1].split() + quarters[2].split() + quarters[3].split()
    made = ()
    for one in gl.static_range(8):
        made = made + (eighths[one].reshape([tile.shape[0], 8, 16]),)  # noqa: RUF005  the kernels' language
    return made


def _as_operand(tile):
    """`[…, …, 16]` of which a thread has four side by side, in the order of an operand of tensor cores."""
    tile = tile.reshape([tile.shape[0], tile.shape[1], 4, 2, 2])
    return tile.permute([0, 1, 3, 2, 4]).reshape([tile.shape[0], tile.shape[1], 16])


if triton is not None:
    multiply_row, multiply_rows, add_parts = map(triton.jit, (multiply_row, multiply_rows, add_parts))
if gluon is not None:
    _ask_ahead, _copy_ahead, _begin_early = map(gluon.jit, (_ask_ahead, _copy_ahead, _begin_early))
    _along, _axis, _as_operand, _split_codes = map(gluon.jit, (_along, _axis, _as_operand, _split_codes))
    _of_pieces, _unpacked, _piece_added, _put_in_pieces = map(
        gluon.jit, (_of_pieces, _unpacked, _piece_added, _put_in_pieces)
    )
    multiply_rows_of_words = gluon.jit(do_not_specialize=["tall", "stages"])(multiply_rows_of_words)
    multiply_row_of_words, multiply_row_of_bytes = gluon.jit(multiply_row_of_words), gluon.jit(multiply_row_of_bytes)


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
