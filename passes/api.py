"""compile_model: from a module in memory to an artifact folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from codegen.folder import check_replaceable, new_folder
from ir.capture import DynamicShapes
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import CompileError
from ir.machine.cluster import Cluster
from ir.machine.host import host_cluster
from ir.machine.named import read_cluster
from ir.plan import StagePlan
from ir.sources import Source, path_of, uncompiled
from ir.units import parse_bytes
from passes.compiler import Compiled, Compiler, Weights
from passes.cost_models import CostSource
from passes.defaults import default_passes
from passes.group_shared import Shared
from passes.partitioners.problem import Objective
from passes.pipeline import Pipeline


def compile_model(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    out: str | Path,
    stages: int | None = None,
    cluster: Cluster | str | Path | None = None,
    dynamic_shapes: DynamicShapes = None,
    checkpoint: str | Path | None = None,
    memory: str | int | None = None,
    objective: str = "throughput",
    weights: str = "copy",
    shared: str = "auto",
    cost: str = "roofline",
    force: bool = False,
) -> StagePlan:
    """Cut `model`, called as `model(*args, **kwargs)`, into stages and write them to the folder `out`.

    Give `stages` for that many equal devices of this host, or a `cluster`: the path of
    its file, or the name of common devices such as "h200x4".
    `checkpoint` is a .safetensors file, or a folder of them, to take the weights from in place of the
    model's own.  `memory` is the most that one device may hold, in bytes or as "16GiB".
    With `cost="profiled"` each distinct operator is timed on the devices, which must be here.
    With `force`, a folder that holds files of others, or edited ones, is moved aside to `OUT.old`.
    Raises CompileError with one clear message; `out` is then as it was.
    """
    check_out(out, model, force=force)
    compiler = Compiler(
        chosen_passes(objective, shared, cost),
        make_cluster(stages, cluster, memory, choice(Weights, weights)),
        choice(Weights, weights),
    )
    source = source_of(model, args, kwargs, dynamic_shapes, checkpoint)
    return compile_to(Path(out), source, compiler, force=force).plan


def chosen_passes(objective: str, shared: str, cost: str) -> Pipeline:
    """The default passes with options by their names.  Raises CompileError for one that is not known."""
    return Pipeline(
        default_passes(
            objective=choice(Objective, objective), shared=choice(Shared, shared), cost=choice(CostSource, cost)
        )
    )


def source_of(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: DynamicShapes,
    checkpoint: str | Path | None,
) -> Source:
    """A module in memory, and how it is called."""
    model = uncompiled(model)
    stored = None if checkpoint is None else Checkpoint.open(Path(checkpoint)).for_model(model)
    return Source(
        name=type(model).__name__,
        model=model,
        args=(args,) if isinstance(args, torch.Tensor) else tuple(args),
        kwargs=dict(kwargs or {}),
        dynamic_shapes=dynamic_shapes,
        weights=model.state_dict() if stored is None else stored,
        notes=() if stored is None else stored.notes,
    )


def compile_to(out: Path, source: Source, compiler: Compiler, *, force: bool = False) -> Compiled:
    """Compile a source to a folder, without a word.  Raises CompileError; `out` is then as it was."""
    inputs = files_of(source)
    check_replaceable(out, force=force, inputs=inputs)
    steps = tuple(compiler.steps(source))
    with new_folder(out, force=force, inputs=inputs) as folder:
        return compiler.write(source, steps, folder)


def check_out(out: str | Path, source: str | Path | nn.Module, *, force: bool = False) -> None:
    """Raise OutputError where the folder `out` cannot be written or replaced, before the source is read."""
    check_replaceable(Path(out), force=force, inputs=() if isinstance(source, nn.Module) else [path_of(source)])


def files_of(source: Source) -> tuple[Path, ...]:
    """The checkpoint of a source, which must stay where it is."""
    return (source.weights.path,) if isinstance(source.weights, Checkpoint) else ()


_Choice = TypeVar("_Choice", bound=Enum)


def choice(cls: type[_Choice], value: str) -> _Choice:
    """A member of an enum by its value.  Raises CompileError that lists the values."""
    try:
        return cls(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in cls)
        raise CompileError(f"{cls.__name__.lower()} is {value!r}; it can be {known}") from None


def make_cluster(
    stages: int | None, cluster: Cluster | str | Path | None, memory: str | int | None, weights: Weights
) -> Cluster:
    """The devices to plan for.  Raises CompileError where neither or both of `stages` and `cluster` are given.

    A plan without weights is for devices elsewhere: this host's memory does not limit it.
    """
    if (stages is None) == (cluster is None):
        raise CompileError("say either how many stages (--stages N) or which devices (--cluster FILE.toml)")
    if stages is not None and stages < 1:
        raise CompileError(f"{stages} stages: there must be at least one")
    if isinstance(cluster, (str, Path)):
        cluster = read_cluster(cluster)
    if cluster is not None:
        return limited(cluster, memory)
    host = host_cluster(stages or 1)
    return limited(_unlimited(host) if weights is Weights.none else host, memory)


def _unlimited(machine: Cluster) -> Cluster:
    return replace(machine, devices=tuple(replace(d, memory=inf) for d in machine.devices))


def limited(machine: Cluster, memory: str | int | None) -> Cluster:
    """The same devices, each with at most that much memory.  Raises CompileError where it does not read as a size."""
    if memory is None:
        return machine
    try:
        limit = int(parse_bytes(memory))
    except ValueError as e:
        raise CompileError(f"--memory: {e}") from e
    return replace(machine, devices=tuple(replace(d, memory=min(limit, d.memory)) for d in machine.devices))
