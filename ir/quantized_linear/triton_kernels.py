"""Kernels in Triton, for any GPU: of one row, of several rows, and what adds up their parts."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from ir.quantized_linear.languages import constexpr, tl, triton


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


if triton is not None:
    multiply_row, multiply_rows, add_parts = map(triton.jit, (multiply_row, multiply_rows, add_parts))
