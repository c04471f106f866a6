"""Attention over pages of keys and values: a kernel in Triton, and plain torch where there is none for it."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportPossiblyUnboundVariable=false

from pathlib import Path
from zlib import crc32

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = None
constexpr = int if tl is None else tl.constexpr
JOINS = True  # whether the last of the programs that share queries joins what they have; else a kernel of its own does
PROGRAMS = 640  # of a kernel, which a large GPU runs at once: half as many more would take twice as long
_arrivals: dict[tuple[torch.device, int], torch.Tensor] = {}


def paged_attention(query, keys, values, table, last, scale, window=0, cap=0.0, slopes=None, sinks=None):
    """Attention of queries `[batch, heads, seq, dim]` over pools `[pages, page, kv_heads, dim]`.

    The query of a token sees the keys 0 to `last` `[batch, seq]` of the pages in its row of `table` `[batch, pages]`,
    of these at most the last `window`.  A score has the limit `cap`; `slopes` `[heads]` are what it gains a key, and
    `sinks` `[heads]` scores without a value.
    """
    if torch.compiler.is_compiling():
        options = {"window": window, "cap": cap, "slopes": slopes, "sinks": sinks}
        return getattr(torch.ops.stagecut, ATTENTION)(query, keys, values, table, last, scale=scale, **options)
    way = attention_in_torch if triton is None or query.device.type == "cpu" else attention_by_kernel
    return way(query, keys, values, table, last, scale, window, cap, slopes, sinks)


def attention_by_kernel(query, keys, values, table, last, scale, window, cap, slopes, sinks):
    """The same on a device that has kernels."""
    (batch, heads, seq, dim), (page, kv_heads, width) = query.shape, values.shape[1:]
    query = query if query.stride(-1) == 1 else query.contiguous()
    of_key = triton.next_power_of_2(max(dim, width)) * query.element_size()  # bytes
    rows = 16 if seq * heads <= 16 * kv_heads or dim > 256 else 64
    block = max((1 << 14) // max(of_key, 256), 16)  # keys, as many as any GPU has room for
    tiles = triton.cdiv(seq * heads // kv_heads, rows)
    splits = shared_parts(batch * kv_heads, table.shape[1] * page // block) if tiles == 1 else 1
    out = query.new_empty(batch, seq, heads, width)
    parts = query.new_empty(splits, batch, seq, heads, width, dtype=torch.float32) if splits > 1 else out
    marks = query.new_empty(2, splits, batch, seq, heads, dtype=torch.float32) if splits > 1 else out
    early, joins = starts_early(), JOINS and splits > 1
    launch = {"launch_pdl": True} if early else {}
    real = triton.next_power_of_2(seq * heads // kv_heads) if joins else 1
    attend_pages[tiles, batch * kv_heads, splits](
        query, keys, values, table, last, slopes, sinks, parts, marks, out, arrivals_at(keys) if joins else out,
        scale, window, cap, seq, splits, *query.stride()[:3], table.stride(0), *last.stride(), batch * seq * heads,
        table.shape[1], len(keys),
        kv_heads, heads // kv_heads, dim, triton.next_power_of_2(dim), width, triton.next_power_of_2(width),
        page, rows, block, splits > 1, joins, real, max(4096 // (real * triton.next_power_of_2(width)), 1),
        window > 0, cap > 0, slopes is not None, sinks is not None,
        early, num_warps=2 if rows == 16 and of_key <= 512 else 4, num_stages=2 if of_key <= 2048 else 1, **launch,
    )  # fmt: skip
    if splits > 1 and not joins:
        join_splits[batch * seq * heads,](
            parts, marks, sinks, out, batch * seq * heads, heads, width, triton.next_power_of_2(width), splits,
            sinks is not None, early, num_warps=2, **launch,
        )  # fmt: skip
    return out.transpose(1, 2)


def shared_parts(programs, blocks):
    """The parts of the keys that programs share, if so many would have all keys, of so many blocks at most."""
    if JOINS:
        return max(min(PROGRAMS // programs, blocks, 32), 1)
    return triton.next_power_of_2(max(min(triton.cdiv(PROGRAMS, programs), blocks, 32), 1))


def arrivals_at(keys):
    """Zeros, one for each sequence and key head, in which the programs that share their queries count themselves.

    The last one leaves a zero again.  Each pool has its own, as calls for the same pool follow one another.
    """
    place = keys.device, keys.data_ptr()
    if place in _arrivals:
        return _arrivals[place]
    made = torch.zeros(PROGRAMS, dtype=torch.int32, device=keys.device)
    captures = getattr(torch.get_device_module(keys.device), "is_current_stream_capturing", bool)
    if not captures():  # a graph makes these zeros when it runs, for itself alone
        _arrivals[place] = made
    return made


def starts_early():
    """Whether a kernel may be launched before the one before it has ended, and then waits for that itself."""
    target = triton.runtime.driver.active.get_current_target()
    return target.backend != "hip" and target.arch >= 90


def attention_in_torch(query, keys, values, table, last, scale, window, cap, slopes, sinks):
    """The same where there is no kernel for it: of copies of all pages."""
    batch, group = len(table), query.shape[1] // keys.shape[2]
    held = (pool.index_select(0, table.flatten()).view(batch, -1, *pool.shape[2:]) for pool in (keys, values))
    key, value = (tensor.transpose(1, 2).repeat_interleave(group, 1) for tensor in held)
    place, end = torch.arange(key.shape[2], device=query.device), last[:, None, :, None]
    scores = (query @ key.mT).float() * scale
    scores = torch.tanh(scores / cap) * cap if cap else scores
    scores = scores if slopes is None else scores + slopes.float()[:, None, None] * place
    seen = (place <= end) & (place > end - window) if window else place <= end
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.float()[:, None, None].expand(*scores.shape[:3], 1)], -1)
    mixed = scores.softmax(-1)[..., : len(place)].to(value.dtype) @ value
    return mixed.transpose(1, 2).contiguous().transpose(1, 2)  # in memory as the kernel leaves it


def attend_pages(
    query, keys, values, table, last, slopes, sinks, parts, marks, out, arrivals, scale, window, cap, seq, splits,
    batch_stride, head_stride, token_stride, table_stride, last_stride, last_token_stride, count, columns, pages,
    KV_HEADS: constexpr, GROUP: constexpr, DIM: constexpr, DIM_2: constexpr, WIDTH: constexpr, WIDTH_2: constexpr,
    PAGE: constexpr, ROWS: constexpr, BLOCK: constexpr, SPLIT: constexpr, JOINS: constexpr, REAL: constexpr,
    CHUNK: constexpr, WINDOW: constexpr, CAP: constexpr, SLOPES: constexpr, SINKS: constexpr, EARLY: constexpr,
):  # fmt: skip
    """The kernel: ROWS queries of one key head, over one of `splits` parts of the keys that they see.

    The last program to end for these queries may join all parts: of `REAL` rows, and `CHUNK` parts at a time.
    """
    batch, kv, split = tl.program_id(1) // KV_HEADS, tl.program_id(1) % KV_HEADS, tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, token, head = row < seq * GROUP, row // GROUP, kv * GROUP + row % GROUP
    ends_at, table_at = last + batch * last_stride + token * last_token_stride, table + batch * table_stride
    if EARLY:
        guess = tl.load(ends_at, inside, -1, cache_modifier=".cg").to(tl.int32) + 1
        low, high, used = share_of(guess, inside, split, splits, window, BLOCK, WINDOW)
        ask_ahead(keys, values, table_at, low, kv, columns, pages, KV_HEADS, DIM, DIM_2, WIDTH, WIDTH_2, PAGE, BLOCK)
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    d, w = tl.arange(0, DIM_2), tl.arange(0, WIDTH_2)
    at = query + batch * batch_stride + head * head_stride + token * token_stride
    asked = tl.load(at[:, None] + d[None, :], inside[:, None] & (d < DIM)[None, :], 0.0)
    ends = tl.load(ends_at, inside, -1).to(tl.int32) + 1
    if SLOPES:
        slope = tl.load(slopes + head, inside, 0.0).to(tl.float32)
    low, high, used = share_of(ends, inside, split, splits, window, BLOCK, WINDOW)
    best, total = tl.full([ROWS], -1e30, tl.float32), tl.zeros([ROWS], tl.float32)
    mix = tl.zeros([ROWS, WIDTH_2], tl.float32)
    for start in range(low, high, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < high
        held = tl.load(table_at + place // PAGE, there, 0).to(tl.int64) * PAGE + place % PAGE
        held = held * KV_HEADS + kv
        key = tl.load(keys + held[None, :] * DIM + d[:, None], there[None, :] & (d < DIM)[:, None], 0.0)
        score = tl.dot(asked, key, input_precision="ieee") * scale
        if CAP:
            score = cap * (2 * tl.sigmoid(2 * score / cap) - 1)
        if SLOPES:
            score += slope[:, None] * place[None, :]
        seen = place[None, :] < ends[:, None]
        if WINDOW:
            seen &= place[None, :] >= ends[:, None] - window
        score = tl.where(seen & there[None, :], score, float("-inf"))
        top = tl.maximum(best, tl.max(score, 1))
        weight, fade = tl.exp(score - top[:, None]), tl.exp(best - top)
        value = tl.load(values + held[:, None] * WIDTH + w[None, :], there[:, None] & (w < WIDTH)[None, :], 0.0)
        mix = mix * fade[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        best, total = top, total * fade + tl.sum(weight, 1)
    place = (split * count + (batch * seq + token) * (KV_HEADS * GROUP) + head).to(tl.int64)
    if SPLIT:
        if low < high or not JOINS:
            tl.store(marks + place, best, inside)
            tl.store(marks + splits * count + place, total, inside)
            tl.store(parts + place[:, None] * WIDTH + w[None, :], mix, inside[:, None] & (w < WIDTH)[None, :])
            if JOINS:
                tl.debug_barrier()  # all threads have stored before one of them counts the program
                if tl.atomic_add(arrivals + tl.program_id(1), 1, sem="acq_rel") == used - 1:
                    join_parts(
                        parts, marks, sinks, out, seq, splits, count, used, batch, kv,
                        KV_HEADS, GROUP, WIDTH, WIDTH_2, REAL, CHUNK, SINKS,
                    )  # fmt: skip
                    tl.store(arrivals + tl.program_id(1), 0)
    else:
        if SINKS:
            total += tl.exp(tl.load(sinks + head, inside, 0.0).to(tl.float32) - best)
        mix = mix / total[:, None]
        tl.store(out + place[:, None] * WIDTH + w[None, :], mix, inside[:, None] & (w < WIDTH)[None, :])


def share_of(ends, inside, split, splits, window, BLOCK: constexpr, WINDOW: constexpr):
    """The first key of a part, the end of its keys, and how many parts have any: `ends` are those of the queries."""
    high, low = tl.max(ends), 0
    if WINDOW:
        low = tl.maximum(tl.min(tl.where(inside, ends, high)) - window, 0) // BLOCK * BLOCK
    share = tl.cdiv(tl.maximum(high - low, 1), splits * BLOCK) * BLOCK
    used = tl.cdiv(high - low, share)
    low += split * share
    return low, tl.minimum(low + share, high), used


def ask_ahead(
    keys, values, table_at, low, kv, columns, pages,
    KV_HEADS: constexpr, DIM: constexpr, DIM_2: constexpr, WIDTH: constexpr, WIDTH_2: constexpr,
    PAGE: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Ask for the first keys of a part while kernels before may still run.

    Should the table, or `low`, be what one of them has yet to make, other keys of the pool come in vain.
    """
    LINE: constexpr = 1024 // keys.dtype.element_ty.primitive_bitwidth  # numbers that are asked for at a time
    place = tl.minimum(tl.maximum(low, 0), (columns - 1) * PAGE) + tl.arange(0, BLOCK)
    column = tl.minimum(place // PAGE, columns - 1)
    held = tl.load(table_at + column, cache_modifier=".cg").to(tl.int64)
    held = (tl.minimum(tl.maximum(held, 0), pages - 1) * PAGE + place % PAGE) * KV_HEADS + kv
    d, w = tl.arange(0, (DIM_2 + LINE - 1) // LINE) * LINE, tl.arange(0, (WIDTH_2 + LINE - 1) // LINE) * LINE
    ask(keys + held[:, None] * DIM + tl.minimum(d, DIM - 1)[None, :])
    ask(values + held[:, None] * WIDTH + tl.minimum(w, WIDTH - 1)[None, :])


def ask(at):
    """Have the lines of memory at these addresses come into the cache that all processors share."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at], dtype=tl.int32, is_pure=False, pack=1
    )


def join_parts(
    parts, marks, sinks, out, seq, splits, count, used, batch, kv,
    KV_HEADS: constexpr, GROUP: constexpr, WIDTH: constexpr, WIDTH_2: constexpr,
    REAL: constexpr, CHUNK: constexpr, SINKS: constexpr,
):  # fmt: skip
    """Add up what the programs for the queries of one sequence and key head have of the `used` parts of its keys."""
    row, w = tl.arange(0, REAL), tl.arange(0, WIDTH_2)
    inside, head = row < seq * GROUP, kv * GROUP + row % GROUP
    place = ((batch * seq + row // GROUP) * (KV_HEADS * GROUP) + head).to(tl.int64)
    best, total = tl.full([REAL], -1e30, tl.float32), tl.zeros([REAL], tl.float32)
    mix = tl.zeros([REAL, WIDTH_2], tl.float32)
    for first in range(0, used, CHUNK):
        split = first + tl.arange(0, CHUNK)
        at, there = split[:, None] * count + place[None, :], (split < used)[:, None] & inside[None, :]
        tops = tl.load(marks + at, there, -1e30, cache_modifier=".cg")
        totals = tl.load(marks + splits * count + at, there, 0.0, cache_modifier=".cg")
        some = there[:, :, None] & (w < WIDTH)[None, None, :]
        part = tl.load(parts + at[:, :, None] * WIDTH + w[None, None, :], some, 0.0, cache_modifier=".cg")
        top = tl.maximum(best, tl.max(tops, 0))
        weight, fade = tl.exp(tops - top[None, :]), tl.exp(best - top)
        mix = mix * fade[:, None] + tl.sum(part * weight[:, :, None], 0)
        best, total = top, total * fade + tl.sum(totals * weight, 0)
    if SINKS:
        total += tl.exp(tl.load(sinks + head, inside, 0.0).to(tl.float32) - best)
    tl.store(out + place[:, None] * WIDTH + w[None, :], mix / total[:, None], inside[:, None] & (w < WIDTH)[None, :])


def join_splits(
    parts, marks, sinks, out, count, heads, WIDTH: constexpr, WIDTH_2: constexpr, SPLITS: constexpr, SINKS: constexpr,
    EARLY: constexpr,
):  # fmt: skip
    """The kernel that adds up what `attend_pages` has of all splits, for one query and head."""
    if EARLY:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    row, split, w = tl.program_id(0), tl.arange(0, SPLITS), tl.arange(0, WIDTH_2)
    best = tl.load(marks + split * count + row)
    weight = tl.exp(best - tl.max(best, 0))
    total = tl.sum(weight * tl.load(marks + (SPLITS + split) * count + row), 0)
    if SINKS:
        total += tl.exp(tl.load(sinks + row % heads).to(tl.float32) - tl.max(best, 0))
    place = (split * count + row).to(tl.int64)
    part = tl.load(parts + place[:, None] * WIDTH + w[None, :], (w < WIDTH)[None, :], 0.0)
    tl.store(out + row * WIDTH + w, tl.sum(part * weight[:, None], 0) / total, w < WIDTH)


if triton is not None:
    attend_pages, share_of, ask_ahead, ask = map(triton.jit, (attend_pages, share_of, ask_ahead, ask))
    join_parts, join_splits = map(triton.jit, (join_parts, join_splits))


ATTENTION_SCHEMA = (
    "(Tensor query, Tensor keys, Tensor values, Tensor table, Tensor last, "
    "float scale, int window=0, float cap=0.0, Tensor? slopes=None, Tensor? sinks=None) -> Tensor"
)
# An operator, which torch.compile takes as it is.  Artifacts of other versions have files with other ones.
ATTENTION = f"paged_attention_{crc32(Path(__file__).read_bytes()):08x}"


def like_attention(query, keys, values, *_, **__):
    """A tensor of the shape, the strides and the dtype of attention, without values."""
    batch, heads, seq, _ = query.shape
    return values.new_empty(batch, seq, heads, values.shape[3]).transpose(1, 2)


if not hasattr(torch.ops.stagecut, ATTENTION):
    made = torch.library.custom_op(f"stagecut::{ATTENTION}", paged_attention, mutates_args=(), schema=ATTENTION_SCHEMA)
    made.register_fake(like_attention)
