"""What the command line does: from a source to an artifact folder, a table and a report."""

from __future__ import annotations

import dataclasses
import json
import warnings
from enum import Enum
from pathlib import Path
from shutil import which
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from codegen.folder import check_replaceable, new_folder
from codegen.picture.dot import Detail
from codegen.report.page import REPORT
from ir.capture.sizes.dynamic import parse_dynamic
from ir.errors import CompileError
from ir.printer import print_graph
from ir.sources import Reading, Source, path_of, read_source
from passes.api import check_out, files_of, make_cluster
from passes.cli.browser import open_in_browser
from passes.cli.flags import with_pass_flags
from passes.cli.table import print_table
from passes.cli.terminal import progress, shown, stderr, stdout, tell
from passes.cli.verify_stages import compare
from passes.compiler import EXPORT, Compiler, Weights
from passes.defaults import default_passes
from passes.pipeline import Pipeline, Step

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class DType(str, Enum):
    """The dtypes that weights may be given."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def compile_source(
    source: Annotated[str, typer.Argument(help="model.py, model.py:function, a checkpoint folder or model.pt2")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the artifact folder to write")] = None,
    stages: Annotated[int | None, typer.Option(help="that many equal devices of this host")] = None,
    cluster: Annotated[Path | None, typer.Option(help="a file of devices and links, or such as h200x4")] = None,
    memory: Annotated[str | None, typer.Option(help="the most one device may hold, such as 16GiB")] = None,
    dynamic: Annotated[list[str] | None, typer.Option(help="sizes that change: input_ids:0=batch,1=seq")] = None,
    force: Annotated[bool, typer.Option("--force", help="move a folder with files of others to OUT.old")] = False,
    weights: Annotated[Weights, typer.Option(help="copies, links into the checkpoint, or none")] = Weights.copy,
    dtype: Annotated[DType | None, typer.Option(help="of the weights; else as the source has them")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="run code in the folder")] = False,
    no_padding: Annotated[bool, typer.Option("--no-padding", help="call a checkpoint without attention_mask")] = False,
    draw: Annotated[Detail, typer.Option(help="how much the picture shows")] = Detail.modules,
    print_after: Annotated[str | None, typer.Option(help="print the graph after a pass, export or all")] = None,
    stop_after: Annotated[str | None, typer.Option(help="run no pass after this one, and write nothing")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="run uncut and cut, and compare")] = False,
    show: Annotated[bool, typer.Option("--open", help="open the report in the browser")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON in place of the table")] = False,
    **options: Any,
) -> None:
    """Cut a PyTorch model into pipeline stages, each a readable module with its own weights."""
    pipeline = _pipeline(options, print_after, stop_after)
    _check_asked(out, stop_after, verify, weights)
    if out is not None:
        check_out(out, source, force=force)
    compiler = Compiler(pipeline, make_cluster(stages, cluster, memory, weights), weights, draw)
    number = None if dtype is None else getattr(torch, dtype.value)
    reading = Reading(number, trust_remote_code, weights is not Weights.none, not no_padding)
    given = _read(source, reading, dynamic)
    inputs = (path_of(source), *files_of(given))
    if out is not None:
        check_replaceable(out, force=force, inputs=inputs)
    steps, dumps = _run(compiler, given, print_after, stderr if as_json else stdout)
    if stop_after is not None or out is None:
        return
    with new_folder(out, force=force, inputs=inputs) as folder:
        _write_dumps(dumps, folder)
        with progress("stages and weights"):
            compiled = compiler.write(given, steps, folder)
        if verify:
            with progress("verify"):
                compare(given, folder)
    if folder / "graph.svg" not in compiled.files:
        why = "it took dot over a minute" if which("dot") else "install graphviz (apt-get install graphviz)"
        stderr.print(f"no picture: {why}; to draw it: dot -Tsvg {out}/graph.dot")
    if as_json:
        print(json.dumps(dataclasses.asdict(compiled.summary), indent=1))
    else:
        print_table(compiled.summary, stdout)
    if show:
        open_in_browser(out / REPORT)


def _pipeline(options: dict[str, Any], print_after: str | None, stop_after: str | None) -> Pipeline:
    """The passes that are to run.  Raises PipelineError for a name among the options that no pass has."""
    pipeline = Pipeline(default_passes(**options, progress=tell))
    for name in {print_after, stop_after} - {None, "all", EXPORT}:
        pipeline.index(str(name))
    return pipeline.until(stop_after) if stop_after else pipeline


def _check_asked(out: Path | None, stop_after: str | None, verify: bool, weights: Weights) -> None:
    """Raise CompileError, before anything takes time, for options that do not go together."""
    if out is None and stop_after is None:
        raise CompileError("where to? name the artifact folder with -o OUT")
    if verify and weights is Weights.none:
        raise CompileError("--verify runs the stages, which needs their weights; drop --weights none")


def _run(compiler: Compiler, given: Source, print_after: str | None, to: Console) -> tuple[list[Step], dict[str, str]]:
    """What each pass leaves, and by file name the dumps that were asked for, which are printed as they come."""
    dumps: dict[str, str] = {}
    steps: list[Step] = []
    for step in shown(compiler.steps(given)):
        if print_after in (step.name, "all"):
            dumps[f"{len(steps):02}-{step.name}.txt"] = f"{print_graph(step.graph)}\n"
            to.print(f"# after {step.name}\n{print_graph(step.graph)}\n", markup=False, soft_wrap=True)
        steps.append(step)
    return steps, dumps


def _read(text: str, reading: Reading, dynamic: list[str] | None) -> Source:
    """Read a source; sizes that the user names stand in place of those that were made up for it."""
    named: dict[str, Any] = {}
    for item in dynamic or ():
        try:
            name, dims = parse_dynamic(item)
        except ValueError as e:
            raise CompileError(f"--dynamic: {e}") from e
        named.setdefault(name, {}).update(dims)
    with progress("model"):
        source = read_source(text, reading)
    if not named:
        return source
    declared = {} if source.soft or not isinstance(source.dynamic_shapes, dict) else source.dynamic_shapes
    return dataclasses.replace(source, dynamic_shapes={**declared, **named}, soft=False)


def _write_dumps(dumps: dict[str, str], folder: Path) -> None:
    for name, text in dumps.items():
        (folder / "passes").mkdir(exist_ok=True)
        (folder / "passes" / name).write_text(text)


app.command()(with_pass_flags(compile_source))


def run() -> None:
    warnings.showwarning = lambda message, *_: stderr.print(f"warning: {message}", markup=False)
    app()
