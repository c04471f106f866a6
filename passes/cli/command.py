"""`stagecut compile` and `stagecut compare`: from a source to tables on stdout."""

from __future__ import annotations

import dataclasses
import json

from passes.cli.table import print_comparison, print_table
from passes.cli.terminal import stderr, stdout
from passes.compilation.compare import compared
from passes.compilation.job import Job
from passes.options.options import Candidates, Options


def compile_source(source: str, options: Options) -> None:
    """Compile what the user named, and print the plan to stdout, as a table or as JSON."""
    job = Job.of(options, dumps=stderr if options.json else stdout)
    compiled = job.run(job.read(source))
    if compiled is None:
        return
    if options.json:
        print(json.dumps(dataclasses.asdict(compiled.summary), indent=1))
    else:
        print_table(compiled.summary, stdout)
    job.tell_result(compiled)


def compare_source(source: str, options: Options, candidates: Candidates) -> None:
    """Plan what the user named for each of the candidates, and print the plans to stdout."""
    comparison = compared(options, candidates, source)
    if options.json:
        print(json.dumps(dataclasses.asdict(comparison), indent=1))
    else:
        print_comparison(comparison, stdout)
