"""`stagecut compile`, `recut` and `compare`: from a source to tables on stdout."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from codegen.artifact.cut_again import is_artifact_folder
from ir.errors import SourceError
from passes.cli.table import print_comparison, print_notes, print_table
from passes.cli.terminal import Terminal, stderr, stdout
from passes.compilation.compare import compared
from passes.compilation.job import Job
from passes.compilation.target import target
from passes.options.options import Candidates, Options


def compile_source(source: str, options: Options) -> None:
    """Compile what the user named, and print the plan to stdout, as a table or as JSON."""
    with _prints_beside(options):
        job = Job.of(options, dumps=stderr if options.json else stdout)
        compiled = job.run(job.read(source))
    if compiled is None:
        return
    if options.json:
        print(json.dumps(dataclasses.asdict(compiled.summary), indent=1))
    else:
        print_table(compiled.summary, stdout)
        print_notes(compiled.summary.notes, job.terminal.progress)
    job.tell_result(compiled)


def recut_artifact(artifact: str, options: Options) -> None:
    """Cut an artifact's model otherwise, into the folder `out`, by default beside it: `mine-4` for four devices."""
    if options.sequences is not None or options.tokens is not None:
        options = dataclasses.replace(options, generate=True)
    if not is_artifact_folder(Path(artifact)):
        raise SourceError(f"{artifact} is no artifact: stagecut compile writes one, and cuts what is not cut yet")
    if options.out is None and options.stop_after is None:
        folder = Path(artifact).resolve()
        options = dataclasses.replace(options, out=folder.with_name(f"{folder.name}-{len(target(options).devices)}"))
    compile_source(artifact, options)


def compare_source(source: str, options: Options, candidates: Candidates) -> None:
    """Plan what the user named for each of the candidates, and print the plans to stdout."""
    with _prints_beside(options):
        comparison = compared(options, candidates, source)
    if options.json:
        print(json.dumps(dataclasses.asdict(comparison), indent=1))
    else:
        print_comparison(comparison, stdout)
        print_notes(comparison.notes, Terminal.of(options).progress)


def _prints_beside(options: Options) -> AbstractContextManager[Any]:
    """A context in which prints of the model's own code go to stderr, where stdout is JSON."""
    return redirect_stdout(sys.stderr) if options.json else nullcontext()
