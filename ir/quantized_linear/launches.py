"""Launches of the kernels: their grids, their tiles, and the instructions that unpack codes."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false

import torch

from ir.quantized_linear.gluon_kernels import multiply_row_of_bytes, multiply_row_of_words, multiply_rows_of_words
from ir.quantized_linear.kernel_choice import architecture
from ir.quantized_linear.languages import gl, triton
from ir.quantized_linear.triton_kernels import add_parts, multiply_row, multiply_rows


def one_row(x, codes, scale, zeros, bias, columns, bits, lowest, added, step):
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


def some_rows(x, codes, scale, zeros, bias, columns, bits, lowest, added, step):
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


def row_of_words(x, codes, scale, zeros, bias, lowest, added, group):
    """A product of x `[columns]` with codes of 4 bits, by tensor cores: codes are exact in the dtype of x."""
    (rows, words), out = codes.shape, x.new_empty(1, len(codes))
    warps = next(most for most in ((4 if rows > 16384 else 8), 4, 2, 1) if words // 16 % most == 0)
    base, one, kind = (0x4300, 0x3F80, "bf16") if x.dtype == torch.bfloat16 else (0x6400, 0x3C00, "f16")
    early = architecture() >= 90
    multiply_row_of_words[rows // 16,](
        x, codes, scale, zeros, bias, out, words, codes.stride(0), *scale.stride(),
        *((0, 0) if zeros is None else zeros.stride()), base + lowest, added, group,
        _unpacking(kind, base, one), warps, early, zeros is not None, bias is not None,
        num_warps=warps, launch_pdl=early,
    )  # fmt: skip
    return out


def row_of_bytes(x, codes, scale, bias, step):
    """A product of x `[columns]` with numbers of 8 bits."""
    (rows, columns), out = codes.shape, x.new_empty(1, len(codes))
    warps = next(most for most in (4, 2, 1) if columns % (512 * most) == 0)
    early = architecture() >= 90
    multiply_row_of_bytes[rows // 4,](
        x, codes, scale, bias, out, columns, codes.stride(0), *scale.stride(),
        *step, step[1] >= columns, warps, early, bias is not None, num_warps=warps, launch_pdl=early,
    )  # fmt: skip
    return out


def rows_of_words(x, codes, scale, zeros, bias, bits, lowest, added, step, ordered):
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
