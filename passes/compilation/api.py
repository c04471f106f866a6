"""compile_model: from any source to an artifact folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ir.plan import StagePlan
from passes.compilation.job import Job
from passes.options.options import Options, with_options


@with_options
def compile_model(
    source_or_model: str | Path | nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    out: str | Path,
    variants: Mapping[str, Any] | None = None,
    **options: Any,
) -> StagePlan:
    """Cut a model into stages and write them to the folder `out`.

        plan = compile_model(model, (ids,), out="build/bert", stages=2, dynamic_shapes={"input_ids": {0: "batch"}})
        plan = compile_model("checkpoint-folder", out="build/llama", cluster="h100x4", weights="link")

    `source_or_model` is a module, which is called as `model(*args, **kwargs)`, or the path of a model file, of a
    checkpoint folder or of a `.pt2`, which say themselves how they are called.  The options are those of the
    command line (`stagecut compile --help`), by the names in the signature; one of `stages`, `devices` and
    `cluster` must be given.  Progress goes to stderr; `progress=False` turns it off.

    `variants` are further calls of the model by name, each a tuple of positional arguments, a dict of keywords, or both
    in a pair; the artifact takes calls of all of their kinds, as in `variants={"wide": (x, wide_grid)}`.

    Returns the plan: its stages, and as its `repr` a table of them, with the seconds for which a batch keeps each
    device busy and the values that cross, the value of the cut with its bound, and the sizes that the numbers are for.
    Raises CompileError with one clear message; `out` is then as it was.
    """
    job = Job.of(Options.of({**options, "out": out}))
    compiled = job.run(job.read(source_or_model, args, kwargs, variants))
    assert compiled is not None
    job.tell_notes(compiled)
    job.tell_result(compiled)
    return compiled.plan
