"""auto_partition: from a source to a running pipeline, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ir.capture import DynamicShapes
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CompileError
from ir.machine.host import accelerators, host_cluster, named_cluster
from ir.sources import Reading, Source, read_source
from passes.api import check_out, chosen_passes, compile_to, limited, source_of
from passes.compiler import Compiler, Weights
from runtime import Pipeline


def auto_partition(
    source: str | Path | nn.Module,
    devices: int | Sequence[str] | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    dynamic_shapes: DynamicShapes = None,
    checkpoint: str | Path | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    padding: bool = True,
    memory: str | int | None = None,
    objective: str = "throughput",
    shared: str = "auto",
    cost: str = "roofline",
    force: bool = False,
) -> Pipeline:
    """Cut a model for the devices of this host, and start its stages.

        with auto_partition("checkpoint-folder", devices=4) as pipe:
            y = pipe(input_ids, attention_mask)

    `source` is what the command line takes, or a module, which is called as `source(*args, **kwargs)` and may
    take its weights from a `checkpoint`.  `devices` is how many equal ones, or their names; by default all GPUs,
    or else the CPU.  With `padding=False` the model of a checkpoint folder is called without an attention mask:
    for batches whose texts are all of one length.  The artifact goes to `out`, or to a temporary folder that is
    removed when the pipeline closes; with `force`, what others put into `out` is moved aside to `OUT.old`.
    Raises CompileError with one clear message.
    """
    if out is not None:
        check_out(out, source, force=force)
    if isinstance(source, nn.Module):
        given = source_of(source, args, kwargs, dynamic_shapes, checkpoint)
    elif args or kwargs or checkpoint or dynamic_shapes:
        raise CompileError(f"{source} says itself how it is called; args, kwargs and the like go with a module")
    else:
        given = read_source(str(source), Reading(dtype, trust_remote_code, padding=padding))
    devices = max(1, len(accelerators())) if devices is None else devices
    machine = host_cluster(devices) if isinstance(devices, int) else named_cluster(devices)
    weights = Weights.link if isinstance(given.weights, Checkpoint) else Weights.copy
    compiler = Compiler(chosen_passes(objective, shared, cost), limited(machine, memory), weights)
    return _Passing.start(given, compiler) if out is None else _start(given, compiler, Path(out), force)


def _start(source: Source, compiler: Compiler, out: Path, force: bool) -> Pipeline:
    compile_to(out, source, compiler, force=force)
    return Pipeline.load(out)


class _Passing(Pipeline):
    """A pipeline whose artifact goes when it is closed."""

    _folder: TemporaryDirectory[str]

    @classmethod
    def start(cls, source: Source, compiler: Compiler) -> _Passing:
        folder = TemporaryDirectory(prefix="stagecut-")
        try:
            out = Path(folder.name) / source.name
            compile_to(out, source, compiler)
            pipe = cls.load(out)
            assert isinstance(pipe, cls)
        except BaseException:
            folder.cleanup()
            raise
        pipe._folder = folder
        return pipe

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
