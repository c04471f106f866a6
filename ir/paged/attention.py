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
PROGRAMS = 640  # that a large GPU runs at once; what comes behind them has most of it idle at the end


def paged_attention(query, keys, values, table, last, scale, window=0, cap=0.0, slopes=None, sinks=None):
    """Attention of queries `[batch, heads, seq, dim]` over pools `[pages, page, kv_heads, dim]`.

    The query of a token sees the keys 0 to `last` `[batch, seq]` of the pages in its row of `table` `[batch, pages]`,
    of these at most the last `window`.  A score has the limit `cap`; `slopes` `[heads]` are what it gains a key, and
    `sinks` `[heads]` scores without a value.
    """
    (batch, heads, seq, dim), (page, kv_heads, width) = query.shape, values.shape[1:]
    if torch.compiler.is_compiling():
        options = {"window": window, "cap": cap, "slopes": slopes, "sinks": sinks}
        return getattr(torch.ops.stagecut, ATTENTION)(query, keys, values, table, last, scale=scale, **options)
    if triton is None or query.device.type == "cpu":
        return attention_in_torch(query, keys, values, table, last, scale, window, cap, slopes, sinks)
    query = query if query.stride(-1) == 1 else query.contiguous()
    of_key = triton.next_power_of_2(max(dim, width)) * query.element_size()  # bytes
    rows = 16 if seq * heads <= 16 * kv_heads or dim > 256 else 64
    block = max((1 << 14) // max(of_key, 256), 16)  # keys, as many as any GPU has room for
    tiles = triton.cdiv(seq * heads // kv_heads, rows)
    splits = shared_parts(batch * kv_heads, table.shape[1] * page // block) if tiles == 1 else 1
    out = query.new_empty(batch, seq, heads, width)
    parts = query.new_empty(splits, batch, seq, heads, width, dtype=torch.float32) if splits > 1 else out
    marks = query.new_empty(2, splits, batch, seq, heads, dtype=torch.float32) if splits > 1 else out
    early = starts_early()
    launch = {"launch_pdl": True} if early else {}
    attend_pages[tiles, batch * kv_heads, splits](
        query, keys, values, table, last, slopes, sinks, parts, marks, scale, window, cap, seq, splits,
        *query.stride()[:3], table.stride(0), *last.stride(), batch * seq * heads,
        kv_heads, heads // kv_heads, dim, triton.next_power_of_2(dim), width, triton.next_power_of_2(width),
        page, rows, block, splits > 1, window > 0, cap > 0, slopes is not None, sinks is not None and splits == 1,
        early, batch > 1,
        num_warps=2 if rows == 16 and of_key <= 512 else 4, num_stages=2 if of_key <= 2048 else 1, **launch,
    )  # fmt: skip
    if splits > 1:
        join_splits[batch * seq * heads,](
            parts, marks, sinks, out, batch * seq * heads, heads, width, triton.next_power_of_2(width), splits,
            sinks is not None, early, batch > 1, num_warps=joining_warps(splits, width), **launch,
        )  # fmt: skip
    return out.transpose(1, 2)


def shared_parts(programs, blocks):
    """The parts, a power of two, into which the keys of each of so many programs are split, of so many blocks."""
    most = max(min(PROGRAMS // programs, blocks, 32), 1)
    return 1 << most.bit_length() - 1


def joining_warps(splits, width):
    """The warps that join parts, a power of two up to 8: a thread has 16 numbers, few enough to be loaded at once."""
    return 1 << min(max(splits * width // 512, 1).bit_length() - 1, 3)


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
    query, keys, values, table, last, slopes, sinks, parts, marks, scale, window, cap, seq, splits,
    batch_stride, head_stride, token_stride, table_stride, last_stride, last_token_stride, count,
    KV_HEADS: constexpr, GROUP: constexpr, DIM: constexpr, DIM_2: constexpr, WIDTH: constexpr, WIDTH_2: constexpr,
    PAGE: constexpr, ROWS: constexpr, BLOCK: constexpr, SPLIT: constexpr,
    WINDOW: constexpr, CAP: constexpr, SLOPES: constexpr, SINKS: constexpr, EARLY: constexpr, SEVERAL: constexpr,
):  # fmt: skip
    """The kernel: ROWS queries of one key head, over one of `splits` parts of the keys that they see."""
    begin_early(EARLY, SEVERAL)
    batch, kv, split = tl.program_id(1) // KV_HEADS, tl.program_id(1) % KV_HEADS, tl.program_id(2)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, token, head = row < seq * GROUP, row // GROUP, kv * GROUP + row % GROUP
    d, w = tl.arange(0, DIM_2), tl.arange(0, WIDTH_2)
    at = query + batch * batch_stride + head * head_stride + token * token_stride
    asked = tl.load(at[:, None] + d[None, :], inside[:, None] & (d < DIM)[None, :], 0.0)
    ends = tl.load(last + batch * last_stride + token * last_token_stride, inside, -1).to(tl.int32) + 1
    if SLOPES:
        slope = tl.load(slopes + head, inside, 0.0).to(tl.float32)
    high, low = tl.max(ends), 0
    if WINDOW:
        low = tl.maximum(tl.min(tl.where(inside, ends, high)) - window, 0) // BLOCK * BLOCK
    share = tl.cdiv(high - low, splits * BLOCK) * BLOCK
    low += split * share
    high = tl.minimum(low + share, high)
    best, total = tl.full([ROWS], -1e30, tl.float32), tl.zeros([ROWS], tl.float32)
    mix = tl.zeros([ROWS, WIDTH_2], tl.float32)
    for start in range(low, high, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < high
        held = tl.load(table + batch * table_stride + place // PAGE, there, 0).to(tl.int64) * PAGE + place % PAGE
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
    if SINKS:
        total += tl.exp(tl.load(sinks + head, inside, 0.0).to(tl.float32) - best)
    place = (split * count + (batch * seq + token) * (KV_HEADS * GROUP) + head).to(tl.int64)
    if SPLIT:
        tl.store(marks + place, best, inside)
        tl.store(marks + splits * count + place, total, inside)
    else:
        mix = mix / total[:, None]
    tl.store(parts + place[:, None] * WIDTH + w[None, :], mix, inside[:, None] & (w < WIDTH)[None, :])


def join_splits(
    parts, marks, sinks, out, count, heads, WIDTH: constexpr, WIDTH_2: constexpr, SPLITS: constexpr, SINKS: constexpr,
    EARLY: constexpr, SEVERAL: constexpr,
):  # fmt: skip
    """The kernel that adds up what `attend_pages` has of all splits, for one query and head."""
    begin_early(EARLY, SEVERAL)
    row, split, w = tl.program_id(0), tl.arange(0, SPLITS), tl.arange(0, WIDTH_2)
    place = (split * count + row).to(tl.int64)
    part = tl.load(parts + place[:, None] * WIDTH + w[None, :], (w < WIDTH)[None, :], 0.0)
    best, totals = tl.load(marks + place), tl.load(marks + SPLITS * count + place)
    weight = tl.exp(best - tl.max(best, 0))
    total = tl.sum(weight * totals, 0)
    if SINKS:
        total += tl.exp(tl.load(sinks + row % heads).to(tl.float32) - tl.max(best, 0))
    tl.store(out + row * WIDTH + w, tl.sum(part * weight[:, None], 0) / total, w < WIDTH)


def begin_early(EARLY: constexpr, SEVERAL: constexpr):
    """A wait until the kernel before has ended, and the next kernel's start: of SEVERAL texts ahead of the wait."""
    if EARLY and SEVERAL:
        tl.extra.cuda.gdc_launch_dependents()
    if EARLY:
        tl.extra.cuda.gdc_wait()
    if EARLY and not SEVERAL:
        tl.extra.cuda.gdc_launch_dependents()


if triton is not None:
    attend_pages, join_splits, begin_early = map(triton.jit, (attend_pages, join_splits, begin_early))


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
