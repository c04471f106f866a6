"""`stagecut report`, and `python -m passes.report`: a measured run in the report of an artifact."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from codegen.artifact.folder import restamp
from codegen.report.data import Data, measured
from codegen.report.measurement import read_trace
from codegen.report.page import REPORT, data_of, with_data
from ir.errors import OutputError, SourceError
from ir.text.units import format_seconds
from passes.cli.browser import open_in_browser
from passes.cli.table import print_whole, table_of
from passes.cli.terminal import stderr, stdout
from stagecut import main


def show_report(out: Path, trace: Path | None, show: bool) -> None:
    """Put a measured run into the report of an artifact, or open the report in the browser.

    Raises SourceError for a folder without a report, or a trace of another plan.
    """
    page = out / REPORT
    if not page.is_file():
        raise SourceError(f"{out} has no {REPORT}; give the folder that stagecut compile wrote")
    if trace is not None:
        print_run(add_run(page, trace))
    if show:
        open_in_browser(page)
    else:
        stderr.print(f"the report is {page}; --open opens it in the browser", markup=False, soft_wrap=True)


def print_run(data: Data) -> None:
    """Print the seconds that each stage was predicted to take for a batch, and those that it took."""
    table = table_of("stage", "device", numbers=("predicted", "measured", "measured / predicted"))
    for stage, seconds in zip(data["summary"]["stages"], data["measured_seconds"], strict=True):
        predicted = stage["compute_seconds"]
        ratio = f"{seconds / predicted:.2f}" if predicted else "–"
        table.add_row(str(stage["stage"]), stage["device"], format_seconds(predicted), format_seconds(seconds), ratio)
    print_whole(table, stdout)


def add_run(page: Path, trace: Path) -> Data:
    """The data of the report with the run in it.

    Raises SourceError for files that are no report or no run of that plan; the page is then as it was.
    """
    try:
        text = page.read_text(encoding="utf-8")
        data = data_of(text)
    except (OSError, ValueError) as e:
        raise SourceError(f"{page} is no report: {e}; compile the model again") from e
    try:
        data = measured(data, read_trace(trace, data["summary"]["model"]))
        text = with_data(text, data)
    except ValueError as e:
        raise SourceError(f"{trace} is of another plan than {page}: {e}") from e
    fresh = page.with_name(f".{page.name}.new-{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(page)
        restamp(page)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise OutputError(f"cannot write {page}: {e}") from e
    return data


if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
