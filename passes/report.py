"""A measured run in the report: `python -m passes.report OUT --trace trace.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from codegen.report.data import measured
from codegen.report.measurement import read_trace
from codegen.report.page import REPORT, data_of, with_data
from ir.errors import OutputError, SourceError
from passes.browser import open_in_browser
from passes.terminal import exit_status

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="an artifact folder")],
    trace: Annotated[Path | None, typer.Option(help="a run that Pipeline.trace wrote, to show beside the plan")] = None,
    show: Annotated[bool, typer.Option("--open", help="open the report in the browser")] = False,
) -> None:
    """Put a measured run into the report of an artifact, or open the report."""
    with exit_status():
        page = out / REPORT
        if trace is not None:
            add_run(page, trace)
        if show:
            open_in_browser(page)


def add_run(page: Path, trace: Path) -> None:
    """Raises SourceError for files that are no report or no run of that plan; the page is then as it was."""
    try:
        text = page.read_text(encoding="utf-8")
        data = data_of(text)
    except (OSError, ValueError) as e:
        raise SourceError(f"{page} is no report: {e}; compile the model again") from e
    try:
        text = with_data(text, measured(data, read_trace(trace)))
    except ValueError as e:
        raise SourceError(f"{trace} is of another plan than {page}: {e}") from e
    fresh = page.with_name(f".{page.name}.new-{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(page)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise OutputError(f"cannot write {page}: {e}") from e


if __name__ == "__main__":
    app()
