"""The picture of a comparison, as SVG: how fast each machine is, and how busy its devices are."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from ir.numbers.comparison import BINDS, Comparison, DeviceLoad, Planned, Refused
from ir.text.units import format_count, format_seconds

_WIDTH, _MARGIN, _GAP = 960, 32, 22  # pixels
_NAMES, _SPEEDS, _DEVICES = 32, 190, 520  # where the columns begin
_SPEED_WIDTH, _DEVICE_WIDTH = 190, 408
_BAR, _THIN = 18, 9  # heights of a bar, and of one of many

_STYLE = """
text { font: 14px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #1c2128; }
.page { fill: #ffffff; } .title { font-size: 20px; font-weight: 620; } .quiet { fill: #5d6773; font-size: 12.5px; }
.track { fill: #edf0f3; } .speed { fill: #4477aa; } .compute { fill: #77aadd; } .transfer { fill: #ee8866; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ed; } .page { fill: #14171c; } .quiet { fill: #9aa4b1; } .track { fill: #232932; }
}
"""


def draw_machines(comparison: Comparison) -> str:
    """An SVG with a block for each machine: a bar of its throughput, and one of each device's seconds a batch."""
    blocks, top = [], 96
    for row in comparison.rows:
        blocks.extend(_block(row, top, comparison))
        top += _height(row) + _GAP
    height = top + _MARGIN - _GAP
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(comparison.model)} on several machines">',
            f"<style>{_STYLE}</style>",
            _rectangle("page", 0, 0, _WIDTH, height),
            *_head(comparison),
            *blocks,
            "</svg>\n",
        )
    )


def _head(comparison: Comparison) -> Iterator[str]:
    yield _text(_NAMES, 42, comparison.model, "title")
    yield _text(_SPEEDS, 76, f"{comparison.counted} a second", "quiet")
    yield _text(_DEVICES, 76, "each device:", "quiet")
    for x, kind, word in ((610, "compute", "computes"), (696, "transfer", "sends or receives")):
        yield _rectangle(kind, x, 66, 10, 10)
        yield _text(x + 15, 76, word, "quiet")


def _height(row: Planned | Refused) -> int:
    if isinstance(row, Refused):
        return _BAR
    return max(2 * _BAR, len(row.loads) * (_thickness(len(row.loads)) + 2))


def _thickness(devices: int) -> int:
    return _BAR if devices <= 2 else _THIN


def _block(row: Planned | Refused, top: int, comparison: Comparison) -> Iterator[str]:
    yield _text(_NAMES, top + 14, row.machine)
    match row:
        case Refused():
            yield _text(_SPEEDS, top + 14, f"no plan: {row.reason.partition(';')[0]}", "quiet")
        case Planned():
            fast = _SPEED_WIDTH * row.per_second / comparison.best
            yield _rectangle("speed", _SPEEDS, top, fast, _BAR)
            yield _text(_SPEEDS + fast + 8, top + 14, format_count(row.per_second))
            bottleneck = format_seconds(row.summary.bottleneck_seconds)
            yield _text(_SPEEDS, top + 33, f"{bottleneck} a batch · {BINDS[row.summary.binds]} binds", "quiet")
            yield from _devices(row.loads, top)


def _devices(loads: tuple[DeviceLoad, ...], top: int) -> Iterator[str]:
    most, high = max(load.seconds for load in loads) or 1.0, _thickness(len(loads))
    for place, load in enumerate(loads):
        y = top + place * (high + 2)
        computes = _DEVICE_WIDTH * load.compute_seconds / most
        yield _rectangle("track", _DEVICES, y, _DEVICE_WIDTH, high)
        yield _rectangle("compute", _DEVICES, y, computes, high)
        yield _rectangle("transfer", _DEVICES + computes, y, _DEVICE_WIDTH * load.transfer_seconds / most, high)


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
