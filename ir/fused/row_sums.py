"""The order in which torch's kernel for GPUs adds up the rows of a tensor of float32, for their means.

As `Reduce.cuh` of torch has it: threads lie in rows and columns; a thread adds up each fourth number of those that it
loads, four at a time, then its four sums; then the threads of a row add theirs up by halves, and then the rows.
"""

WARP, BLOCK = 32, 512  # threads
LOADED = 4  # numbers that a thread loads at once
MANY = 256  # numbers of a thread, with which several blocks would share a row


def is_known_row(columns):
    """Whether torch's order is known here for rows of so many columns."""
    return WARP * LOADED <= columns < BLOCK * MANY and columns % LOADED == 0


def threads_of_row(rows, columns):
    """The columns and rows of threads that add up a row of known columns, one of `rows`."""
    loads = columns // LOADED
    high = min(_power_of_2(rows), BLOCK // min(_power_of_2(loads), WARP))
    wide = min(_power_of_2(loads), BLOCK // high)
    each = -(-columns // wide)
    return (wide, high) if each >= high * 16 or each >= MANY else (wide, 1)


def _power_of_2(number):
    """The largest power of two up to a number and to the threads of a block."""
    return min(1 << number.bit_length() - 1, BLOCK)


def sum_lines(sums, tall, wide, high):
    """The lines of a kernel that add up what threads have, `[tall, 4 * wide * high]`, to `[tall, 1]`."""
    yield f"{sums}_02, {sums}_13 = tl.split(tl.reshape({sums}, [{tall}, {high * wide}, 2, 2]))"
    yield f"{sums}_0, {sums}_2 = tl.split({sums}_02)"
    yield f"{sums}_1, {sums}_3 = tl.split({sums}_13)"
    yield f"{sums} = {sums}_0 + {sums}_1 + {sums}_2 + {sums}_3"
    while wide > 1:
        wide //= 2
        yield from _halves_added(sums, tall * high, wide)
    while high > 1:
        high //= 2
        yield from _halves_added(sums, tall, high)
    yield f"{sums} = tl.reshape({sums}, [{tall}, 1])"


def _halves_added(sums, count, half):
    """The lines that add the second half of each of `count` rows to the first."""
    halves = f"tl.permute(tl.reshape({sums}, [{count}, 2, {half}]), [0, 2, 1])"
    yield f"{sums}_low, {sums}_high = tl.split({halves})"
    yield f"{sums} = {sums}_low + {sums}_high"
