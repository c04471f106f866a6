"""The command `stagecut` and its subcommands. What they do is imported when they run, so that help is quick."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from passes.cli.flags import with_flags
from passes.cli.handed_on import add_handed_on
from passes.cli.loading import load
from passes.cli.terminal import exit_status, stderr
from passes.options.options import Candidates, Options, compared_options, flags, recut_options
from stagecut import __version__

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: stagecut compile my_model.py --stages 2 -o build/mine && stagecut report build/mine --open",
)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with its status."""
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # torch works without it, and so do we
    gc.set_threshold(4_000_000, 10, 100)  # modules and graphs are many objects that live on: they are looked at seldom
    warnings.showwarning = lambda message, *_: stderr.print(f"warning: {message}", markup=False)
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        sys.exit(app(args=given, prog_name="stagecut", standalone_mode=False))
    except Exception as e:
        if not hasattr(e, "format_message"):  # typer's own exceptions, which older versions take from click
            raise
        message = e.format_message()  # type: ignore[attr-defined]
        if message:
            command = getattr(getattr(e, "ctx", None), "command_path", "stagecut")
            stderr.print(f"error: {message.rstrip('.')}; see {command} --help", markup=False, soft_wrap=True)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stagecut {__version__}")
        raise typer.Exit


@app.callback()
def stagecut(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Cut PyTorch models into pipeline stages, and run them."""


def compile_artifact(source: str, options: Options) -> None:
    """Cut a PyTorch model into pipeline stages, each a readable module with its own weights.

    The plan goes to stdout, progress and notes to stderr.
    """
    load("passes.cli.command", "stagecut compile").compile_source(source, options)


_SOURCE = typer.Argument(metavar="SOURCE", help="model.py, model.py:function, a checkpoint folder or a .pt2")
app.command("compile", epilog="Example: stagecut compile my_model.py --stages 2 -o build/mine --verify")(
    with_flags(compile_artifact, Annotated[str, _SOURCE])
)


def recut(source: str, options: Options) -> None:
    """Cut a model otherwise that is cut already: for more devices, or others, without its checkpoint.

    The plan goes to stdout, progress and notes to stderr.
    """
    load("passes.cli.command", "stagecut recut").recut_artifact(source, options)


_ARTIFACT = typer.Argument(metavar="OUT", help="the folder that stagecut compile wrote")
app.command("recut", epilog="Example: stagecut recut build/mine --stages 8 -o build/eight")(
    with_flags(recut, Annotated[str, _ARTIFACT], {Options: recut_options()})
)


def compare_plans(source: str, options: Options, candidates: Candidates) -> None:
    """Plan a PyTorch model for several machines, from one export, and print the plans side by side.

    Nothing is written but the picture, where one is named.
    """
    load("passes.cli.command", "stagecut compare").compare_source(source, options, candidates)


app.command("compare", epilog="Example: stagecut compare build/llama --clusters h100x4,l4x8 --stages 2,4,8")(
    with_flags(
        compare_plans,
        Annotated[str, _SOURCE],
        {Options: compared_options(), Candidates: tuple(flags(Candidates))},
    )
)


@app.command(epilog="Example: stagecut report build/mine --trace trace.json --open")
def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="an artifact folder")],
    trace: Annotated[Path | None, typer.Option(help="a run that Pipeline.trace wrote, to show beside the plan")] = None,
    show: Annotated[bool, typer.Option("--open", help="open the report in the browser")] = False,
) -> None:
    """Put a measured run into the report of an artifact, or open the report."""
    with exit_status():
        load("passes.report", "stagecut report").show_report(out, trace, show)


add_handed_on(app)
