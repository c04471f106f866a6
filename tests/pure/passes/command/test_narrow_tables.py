"""Tables in terminals that are too narrow for them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from passes.cli.table import print_whole, table_of

CELLS = ("0", "cuda:0", "75.0 k", "293.0 KiB", "770.0 KiB", "245.9 KiB", "322.38 µs", "34%")


@pytest.mark.parametrize(("width", "taken"), [(30, 80), (80, 80), (84, 80), (87, 87), (120, 87)])
def test_numbers_and_titles_are_whole_at_any_width(width: int, taken: int) -> None:
    """Columns move together, and then stand out at the right."""
    titles = ("parameters", "weights", "cache", "activations", "predicted", "share")
    table = table_of("stage", "device", numbers=titles)
    table.add_row(*CELLS)
    console = Console(file=io.StringIO(), width=width)
    print_whole(table, console)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) == taken for line in lines)
    assert lines[1].split() == ["stage", "device", *titles]
    assert lines[3].split() == " ".join(CELLS).split()


def test_names_and_types_fold() -> None:
    table = table_of("from", "to", "value", "type", numbers=("bytes",))
    table.add_row("input", "0, 1, 2, 3, 4, 5", "source_table", "int64", "384 B")
    console = Console(file=io.StringIO(), width=40)
    print_whole(table, console)
    first, second = console.file.getvalue().splitlines()[3:5]
    assert (first.split(), second.split()) == (
        ["input", "0,", "1,", "2,", "source_", "int64", "384", "B"],
        ["3,", "4,", "5", "table"],
    )
