"""`stagecut compile`: from a source to an artifact folder, a table and a report."""

from __future__ import annotations

import dataclasses
import json

from passes.cli.table import print_table
from passes.cli.terminal import stderr, stdout
from passes.compilation.job import Job
from passes.options.options import Options


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
