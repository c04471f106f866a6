"""Kernels in Gluon, for NVIDIA's GPUs: they copy codes into shared memory ahead of their turn."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from ir.quantized_linear.languages import async_copy, constexpr, copy_to_shared, gl, gluon, hopper, mma_v2


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


if gluon is not None:
    _ask_ahead, _copy_ahead, _begin_early = map(gluon.jit, (_ask_ahead, _copy_ahead, _begin_early))
    _along, _axis, _as_operand, _split_codes = map(gluon.jit, (_along, _axis, _as_operand, _split_codes))
    _of_pieces, _unpacked, _piece_added, _put_in_pieces = map(
        gluon.jit, (_of_pieces, _unpacked, _piece_added, _put_in_pieces)
    )
    multiply_rows_of_words = gluon.jit(do_not_specialize=["tall", "stages"])(multiply_rows_of_words)
    multiply_row_of_words, multiply_row_of_bytes = gluon.jit(multiply_row_of_words), gluon.jit(multiply_row_of_bytes)
