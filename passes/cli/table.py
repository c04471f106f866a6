"""A plan as a person reads it in a terminal: one table of the stages, one of what flows between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ir.numbers.comparison import Comparison
from ir.numbers.summary import Edge, Summary, TextsAtOnce
from ir.text.call_sizes import better_lines, format_share, format_sizes, how_to_choose
from ir.text.units import format_bytes, format_count, format_seconds

_LONGEST_BAR = 32  # characters
_LEVELS = "▁▂▃▄▅▆▇█"
_FOLDED = ("to", "value", "type")  # of columns that may hold much
_WIDE = 10_000  # characters: no table has as many


def print_table(summary: Summary, console: Console) -> None:
    for table in (_stages(summary), _flow(summary)):
        print_whole(table, console)
    console.print(
        f"{_measures(summary)}"
        f" · balance {summary.balance:.2f} (max/mean)"
        f" · {format_bytes(summary.cut_bytes)} over the cuts"
        f" · {_quality(summary)}",
        soft_wrap=True,
    )
    for line in size_lines(summary):
        console.print(line, soft_wrap=True)


def print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def print_whole(table: Table, console: Console) -> None:
    """Print a table in the width of the console, or in the least that shows all but names and types in one line."""
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(Text.from_markup(str(cell)).cell_len for cell in (column.header, *column.cells))
    table.collapse_padding = _least(table, console) > console.width
    if (least := _least(table, console)) > console.width:
        table.width = least
    console.print(table, crop=False)


def _least(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=_WIDE), table).minimum


def _measures(summary: Summary) -> str:
    return " · ".join(f"{name} {format_seconds(seconds)}" for name, seconds in summary.measures.items())


def size_lines(summary: Summary) -> Iterator[str]:
    """The sizes for which the numbers hold, and those for which the cut is good."""
    if summary.good_for:
        sizes = ", ".join(f"{name} {low} to {high}" for name, (low, high) in summary.good_for.items())
        yield f"within {100 * summary.close:g} % of the best for {sizes}"
    if summary.calls[0].sizes:
        yield f"numbers for {_calls(summary)}"
    if summary.decoding:
        yield f"predicted for texts of half their length: {'; '.join(map(_texts_at_once, _some(summary.decoding)))}"
    yield from better_lines([(other.sizes, other.gain) for other in summary.better])


def _some(decoding: Sequence[TextsAtOnce]) -> Sequence[TextsAtOnce]:
    """One text, the most texts, and a number between."""
    return list(dict.fromkeys((decoding[0], decoding[len(decoding) // 2], decoding[-1])))


def _texts_at_once(found: TextsAtOnce) -> str:
    texts, speed = f"{found.texts} text{'s' * (found.texts > 1)}", found.tokens_per_second
    shown = format_count(round(speed)) if speed >= 10 else f"{speed:.2g}"
    return f"{texts} {shown} tokens/s ({format_seconds(found.token_seconds)} each)"


def _calls(summary: Summary) -> str:
    if len(summary.calls) == 1:
        sizes = summary.calls[0].sizes
        return format_sizes(sizes) + (how_to_choose(sizes) if summary.made_up else "")
    calls = (
        f"{format_share(c.share)} {format_sizes(c.sizes)} ({format_seconds(c.bottleneck_seconds)})"
        for c in summary.calls
    )
    return f"a mix: {'; '.join(calls)}"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """A row for each machine, and below them bars: of its tokens or samples a second, and of each device's load."""
    table = table_of(*comparison.titles[: -len(comparison.numbers)], numbers=comparison.numbers)
    for cells in comparison.cells():
        table.add_row(*map(escape, cells))
    print_whole(table, console)
    sizes = (line for row in comparison.planned()[:1] for line in size_lines(row.summary))
    for line in (*_bars(comparison), *comparison.reasons(), *sizes):
        console.print(line, soft_wrap=True, markup=False)


def _bars(comparison: Comparison) -> Iterator[str]:
    widest = max(len(row.machine) for row in comparison.rows)
    for row in comparison.planned():
        bar = "█" * max(round(_LONGEST_BAR * row.per_second / comparison.best), 1)
        yield f"{row.machine:<{widest}}  {bar:<{_LONGEST_BAR}}  devices {_levels([d.seconds for d in row.loads])}"


def _levels(amounts: Sequence[float]) -> str:
    """A bar for each amount, the most of which is as high as a line."""
    most = max(amounts) or 1.0
    return "".join(_LEVELS[round(amount / most * (len(_LEVELS) - 1))] for amount in amounts)


def _stages(summary: Summary) -> Table:
    cache = any(s.cache_bytes for s in summary.stages)
    held = ("parameters", "weights", *["cache"] * cache, "activations")
    table = table_of("stage", "device", numbers=(*held, "predicted", "share"))
    for s in summary.stages:
        table.add_row(
            str(s.stage),
            s.device,
            format_count(s.parameters),
            format_bytes(s.weight_bytes - s.cache_bytes),
            *[format_bytes(s.cache_bytes)] * cache,
            format_bytes(s.activation_bytes),
            format_seconds(s.compute_seconds),
            f"{s.share:.0%}",
        )
    return table


def _flow(summary: Summary) -> Table:
    """The values that each stage receives and sends; the caller is one end of the model's inputs and outputs."""
    table = table_of("from", "to", "value", "type", numbers=("bytes",))
    for source, target, edge in _edges(summary):
        table.add_row(source, target, edge.name, escape(edge.type), format_bytes(edge.bytes))
    return table


def _edges(summary: Summary) -> Iterator[tuple[str, str, Edge]]:
    readers: dict[str, list[int]] = {}
    for s in summary.stages:
        for edge in s.receives:
            if not edge.stages:
                readers.setdefault(edge.name, []).append(s.stage)
    inputs = {e.name: e for s in summary.stages for e in s.receives if not e.stages}
    for name, edge in inputs.items():
        yield "input", ", ".join(map(str, readers[name])), edge
    for s in summary.stages:
        for edge in s.sends:
            ends = [*map(str, edge.stages), *(["output"] if edge.is_output else [])]
            yield str(s.stage), ", ".join(ends), edge


def table_of(*titles: str, numbers: Sequence[str]) -> Table:
    """A table without rows: columns of text, of which those of names and types may fold, then columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title not in _FOLDED)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _quality(summary: Summary) -> str:
    """The distance of the cut from the best, where it lies, and what binds it or what it saves."""
    if summary.gap < 1e-6:
        return f"the best cut, proven; {summary.place}; {summary.binds} binds"
    if summary.above < 1e-6:
        return f"within {max(summary.gap, 1e-3):.1%} of the best cut; {summary.place}; {summary.binds} binds"
    best, cut = format_bytes(summary.best_cut_bytes), format_bytes(summary.cut_bytes)
    instead = f"; {cut} in place of {best}" if best != cut else ""
    if summary.proven:
        return f"{summary.above:.1%} above the best cut, proven; {summary.place}{instead}"
    return f"at most {1 / (1 - summary.gap) - 1:.1%} above the best cut; {summary.place}{instead}"
