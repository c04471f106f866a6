"""Where measurements go: the terminal, and the tables of docs/benchmarks.md."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter, process_time

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass
class Stopwatch:
    """Seconds that passed, and seconds that this process computed: on a shared machine they differ."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    wall, cpu = perf_counter(), process_time()
    try:
        yield watch
    finally:
        watch.wall, watch.cpu = perf_counter() - wall, process_time() - cpu


@dataclass
class Table:
    """Rows printed as they come; all together they replace the section of the page that has the table's name."""

    name: str
    command: str
    columns: Sequence[str]
    complete: int  # rows; with fewer the page stays as it is
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *row: str) -> None:
        print("\n" + " · ".join(f"{column}: {text}" for column, text in zip(self.columns, row, strict=True)))
        self.rows.append(row)

    def publish(self) -> None:
        text = "\n".join(self._lines())
        print(f"\n{text}")
        if len(self.rows) == self.complete:
            _replace_section(self.name, text)

    def _lines(self) -> Iterator[str]:
        yield f"{date.today()}, on {os.cpu_count()} shared CPU cores, by `{self.command}`:"
        yield ""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        for row in (self.columns, ["-" * width for width in widths], *self.rows):
            yield "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"


def _replace_section(name: str, text: str) -> None:
    page = DOCS / "benchmarks.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    assert closed, f"{page} has no place for {name}"
    page.write_text(f"{before}{begin}{text}\n{end}{after}")
