"""The command line: `python -m passes.compile SOURCE -o OUT --stages N`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, get_type_hints

import torch
import typer
from rich.console import Console

from codegen.artifact import check_replaceable, new_folder, write_artifact
from ir.capture import capture
from ir.capture.dynamic import DynamicShapes, parse_dynamic
from ir.checkpoint import check_weights
from ir.dot import Detail
from ir.errors import CompileError, InternalError, VerifyError
from ir.graph import Graph
from ir.plan import plan_stages
from ir.signature import flatten
from ir.sources import Source, read_source
from passes.api import Weights, make_cluster
from passes.defaults import DEFAULT_PASSES, default_passes
from passes.pipeline import Pipeline, Step
from passes.summary import summarize
from passes.table import print_table
from runtime import InputError, ManifestError, StageError
from runtime import Pipeline as Stages

stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def compile_source(
    source: Annotated[str, typer.Argument(help="model.py, or model.py:function")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the artifact folder to write")] = None,
    stages: Annotated[int | None, typer.Option(help="that many equal devices of this host")] = None,
    cluster: Annotated[Path | None, typer.Option(help="a file that describes the devices and links")] = None,
    memory: Annotated[str | None, typer.Option(help="the most one device may hold, such as 16GiB")] = None,
    dynamic: Annotated[list[str] | None, typer.Option(help="sizes that change: input_ids:0=batch,1=seq")] = None,
    weights: Annotated[Weights, typer.Option(help="write each stage's slice of the weights, or none")] = Weights.copy,
    draw: Annotated[Detail, typer.Option(help="how much the picture shows")] = Detail.modules,
    print_after: Annotated[str | None, typer.Option(help="print the graph after a pass, or after all")] = None,
    stop_after: Annotated[str | None, typer.Option(help="run no pass after this one, and write nothing")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="run uncut and cut, and compare")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON in place of the table")] = False,
    **options: Any,
) -> None:
    """Cut a PyTorch model into pipeline stages, each a readable module with its own weights."""
    pipeline = Pipeline(default_passes(**options))
    for name in {print_after, stop_after} - {None, "all"}:
        pipeline.index(str(name))
    if out is None and stop_after is None:
        raise CompileError("where to? name the artifact folder with -o OUT")
    if verify and weights is Weights.none:
        raise CompileError("--verify runs the stages, which needs their weights; drop --weights none")
    if out is not None:
        check_replaceable(out)
    machine = make_cluster(stages, cluster, memory)
    given = _read(source, dynamic)
    with progress("export"):
        graph = capture(given.model, given.args, given.kwargs, dynamic_shapes=given.dynamic_shapes)
    if weights is Weights.copy:
        check_weights(graph, given.weights)
    dumps: dict[str, str] = {}
    for step in _timed((pipeline.until(stop_after) if stop_after else pipeline).run(graph, machine)):
        graph = step.graph
        if print_after in (step.name, "all"):
            dumps[f"{pipeline.index(step.name) + 1:02}-{step.name}.txt"] = f"{graph}\n"
            (stderr if as_json else stdout).print(f"# after {step.name}\n{graph}\n", markup=False, soft_wrap=True)
    if stop_after is not None or out is None:
        return
    plan = plan_stages(graph, machine)
    summary = summarize(plan, given.name)
    sliced = given.weights if weights is Weights.copy else None
    with new_folder(out) as folder:
        _write_dumps(dumps, folder)
        with progress("stages and weights"):
            written = list(write_artifact(plan, folder, given.name, sliced, draw, dataclasses.asdict(summary)))
        if verify:
            with progress("verify"):
                _compare(given, folder)
    if folder / "graph.svg" not in written:
        stderr.print(f"no picture: install graphviz (apt-get install graphviz), then dot -Tsvg {out}/graph.dot")
    if as_json:
        print(json.dumps(dataclasses.asdict(summary), indent=1))
    else:
        print_table(summary, stdout)


def _read(text: str, dynamic: list[str] | None) -> Source:
    with progress("model"):
        source = read_source(text)
    if not dynamic:
        return source
    shapes: dict[str, Any] = {}
    for item in dynamic:
        try:
            name, dims = parse_dynamic(item)
        except ValueError as e:
            raise CompileError(f"--dynamic: {e}") from e
        shapes.setdefault(name, {}).update(dims)
    declared: DynamicShapes = source.dynamic_shapes
    return dataclasses.replace(source, dynamic_shapes={**declared, **shapes} if isinstance(declared, dict) else shapes)


def _write_dumps(dumps: dict[str, str], folder: Path) -> None:
    for name, text in dumps.items():
        (folder / "passes").mkdir(exist_ok=True)
        (folder / "passes" / name).write_text(text)


def _compare(source: Source, folder: Path) -> None:
    """Run the model and its stages on the example inputs.  Raises VerifyError where they differ."""
    wanted, again = (flatten(_run_uncut(source)) for _ in range(2))
    if not all(map(_same, wanted[0], again[0])):
        stderr.print("  the model is not deterministic: two runs of it differ, so there is nothing to compare with")
        return
    try:
        with Stages.load(folder, devices=["cpu"]) as pipe:
            got = flatten(pipe(*source.args, **source.kwargs))
    except (StageError, InputError, ManifestError) as e:
        raise VerifyError(f"the stages do not run: {e}") from e
    if str(got[1]) != str(wanted[1]):
        raise VerifyError(f"the stages return other containers than the model: {got[1]}, not {wanted[1]}")
    for i, (a, b) in enumerate(zip(wanted[0], got[0], strict=True)):
        if not _same(a, b):
            raise VerifyError(f"output {i} of the stages differs from the model's{_difference(a, b)}")


def _run_uncut(source: Source) -> Any:
    """Run the model and put its buffers back, without the fused layers that torch swaps in for eager modules."""
    args, kwargs = deepcopy((source.args, dict(source.kwargs)))
    before = {name: buffer.clone() for name, buffer in source.model.named_buffers()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return source.model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for name, buffer in source.model.named_buffers():
            buffer.data.copy_(before[name])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return type(a) is type(b) and a == b


def _difference(a: Any, b: Any) -> str:
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
    return f" by at most {(a.double() - b.double()).abs().max():.3g}" if tensors else f": {a!r} and {b!r}"


# ---- the terminal


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner while something runs, and a line with its time when it is done."""
    start = perf_counter()
    with stderr.status(what):
        yield
    stderr.print(f"{what:<20} {perf_counter() - start:6.1f} s")


def _timed(steps: Iterator[Step]) -> Iterator[Step]:
    while True:
        with stderr.status("passes"):
            step = next(steps, None)
        if step is None:
            return
        stderr.print(f"{step.name:<20} {step.seconds:6.1f} s   {_size(step.graph)}")
        yield step


def _size(graph: Graph) -> str:
    stages = len(graph.placement)
    return f"{len(graph.nodes)} nodes" + (f", {stages} stages" if stages > 1 else "")


@contextmanager
def exit_status() -> Iterator[None]:
    """One message for what goes wrong, and 2 for bad input, 1 for a fault of ours, 130 for an interrupt."""
    try:
        yield
    except InternalError as e:
        stderr.print(f"this is a fault of stagecut, not of your input: {e}", markup=False, soft_wrap=True)
        sys.exit(1)
    except CompileError as e:
        stderr.print(f"error: {e}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        stderr.print("interrupted; nothing was written")
        sys.exit(130)


# ---- flags of passes


def with_pass_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each option of each pass, which typer reads off the signature."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = get_type_hints(command, include_extras=True)
    for cls in DEFAULT_PASSES:
        types = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if "help" in field.metadata:
                hints[field.name] = Annotated[types[field.name], typer.Option(help=field.metadata["help"])]
                parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
                own.append(parameter)

    def run(*args: Any, **kwargs: Any) -> None:
        with exit_status():
            command(*args, **kwargs)

    run.__doc__ = command.__doc__
    run.__annotations__ = {p.name: hints[p.name] for p in own}
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own],
        return_annotation=None,
    )
    return run


app.command()(with_pass_flags(compile_source))


def main() -> None:
    warnings.showwarning = lambda message, *_: stderr.print(f"warning: {message}", markup=False)
    app()


if __name__ == "__main__":
    main()
