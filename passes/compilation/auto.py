"""auto_partition: from a source to a running pipeline, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CompileError
from ir.machine.host import accelerators
from passes.compilation.job import Job
from passes.options.options import Options, Weights, with_options
from runtime import Pipeline

_SHARES = 4  # of the CPU, where there is no GPU


@with_options
def auto_partition(
    source_or_model: str | Path | nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    devices: int | Sequence[str] | None = None,
    variants: Mapping[str, Any] | None = None,
    processes: bool | None = None,
    **options: Any,
) -> Pipeline:
    """Cut a model for the devices of this host, and start its stages.

        with auto_partition("checkpoint-folder", devices=4) as pipe:
            y = pipe(input_ids, attention_mask)

    `source_or_model`, `args`, `kwargs`, `variants` and the options are those of `compile_model`.  `devices` is how
    many equal ones, or their names; by default all GPUs, or else 4 shares of the CPU.  `weights` is by default "link"
    for a checkpoint, whose files the stages then read, and "copy" for a module.  The artifact goes to `out`, or to a
    temporary folder that is removed when the pipeline closes.  `processes`: as `Pipeline.load` takes it.

    Returns the running pipeline; close it, or leave its `with` block, to stop the stages.  Raises CompileError with one
    clear message, or DeviceError for devices that are not here.
    """
    if isinstance(args, int) or (len(args) and all(isinstance(arg, str) for arg in args)):
        raise CompileError(f"devices is a keyword: auto_partition(…, devices={args!r})")
    chosen = _on_this_host(Options.of({**options, "devices": devices}))
    if chosen.weights is Weights.none:
        raise CompileError("auto_partition runs the stages, which needs their weights; drop weights='none'")
    folder = None if chosen.out is not None else TemporaryDirectory(prefix="stagecut-")
    try:
        chosen = chosen if folder is None else replace(chosen, out=Path(folder.name) / "artifact")
        return _start(chosen, "weights" in options, (source_or_model, args, kwargs, variants), folder, processes)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise


def _on_this_host(options: Options) -> Options:
    if options.stages or options.devices or options.cluster:
        return options
    return replace(options, devices=len(accelerators()) or _SHARES)


def _start(
    options: Options,
    weights_given: bool,
    given: tuple[Any, ...],
    folder: TemporaryDirectory[str] | None,
    processes: bool | None,
) -> Pipeline:
    job = Job.of(options)
    source = job.read(*given)
    if not weights_given and isinstance(source.weights, Checkpoint):
        job = Job.of(replace(options, weights=Weights.link))
    compiled = job.run(source)
    assert compiled is not None
    job.tell_notes(compiled)
    assert options.out is not None
    if folder is None:
        return Pipeline.load(options.out, processes=processes)
    pipe = _Temporary.load(options.out, processes=processes)
    assert isinstance(pipe, _Temporary)
    pipe._folder = folder
    return pipe


class _Temporary(Pipeline):
    """A pipeline whose artifact is removed when it is closed."""

    _folder: TemporaryDirectory[str]

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
