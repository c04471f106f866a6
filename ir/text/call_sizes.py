"""Sizes of calls in words, and as the option `--workload` takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHOWN = 2  # sizes for which another cut is better that stand beside a table


def format_sizes(sizes: Mapping[Any, int]) -> str:
    """{batch: 4, seq: 128} -> 'batch 4, seq 128'."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def format_share(share: float) -> str:
    """0.7 -> '70 %'."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def format_mix(calls: Sequence[tuple[Mapping[Any, int], float]]) -> str:
    """Sizes of calls with their shares: 'batch 4, seq 128', or '70 % batch 1, seq 4096; 30 % batch 32, seq 512'."""
    if len(calls) == 1:
        return format_sizes(calls[0][0])
    return "; ".join(f"{format_share(share)} {format_sizes(sizes)}" for sizes, share in calls)


def better_lines(better: Sequence[tuple[Mapping[Any, int], float]]) -> Iterator[str]:
    """Lines on sizes for which another cut is better, and by how much, with the largest gains first."""
    for sizes, gain in better[:SHOWN]:
        yield f"at {format_sizes(sizes)} another cut is {format_share(gain)} better: --workload {as_workload(sizes)}"
    if (more := len(better) - SHOWN) > 0:
        yield f"and at {more} other sizes by less; the report lists them"


def how_to_choose(sizes: Mapping[Any, int]) -> str:
    """An addition to sizes that nobody chose: how to choose them."""
    choose = ",".join(f"{name}=…" for name in sizes)
    return f", which were made up: name yours with --workload {choose} or --example"


def as_workload(sizes: Mapping[Any, int]) -> str:
    """{batch: 4, seq: 128} -> 'batch=4,seq=128'."""
    return ",".join(f"{name}={size}" for name, size in sizes.items())
