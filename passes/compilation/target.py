"""The machine that is planned for, as options name it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

from ir.errors import CompileError
from ir.machine.cluster import Cluster
from ir.machine.host import host_cluster, named_cluster
from ir.machine.named import read_cluster
from passes.options.options import Options, Weights


def target(options: Options) -> Cluster:
    """The devices to plan for, each with at most `memory` bytes.

    A plan without weights is for devices elsewhere: this host's memory does not limit it.
    Raises CompileError unless exactly one of `stages`, `devices` and `cluster` is given.
    """
    given = [name for name in ("stages", "devices", "cluster") if getattr(options, name) is not None]
    if len(given) != 1:
        both = f"; {' and '.join(given)} exclude each other" if given else ""
        raise CompileError(
            f"say either how many stages (--stages N) or which devices (--cluster FILE.toml, --devices A,B){both}"
        )
    match options.cluster:
        case None:
            host = _host(options)
            machine = _unlimited(host) if options.weights is Weights.none else host
        case str() | Path() as text:
            machine = read_cluster(text)
        case machine:
            pass
    return _limited(machine, options.memory)


def _host(options: Options) -> Cluster:
    """Devices of this host: so many, or by name."""
    wanted = options.stages or options.devices
    assert wanted is not None
    return host_cluster(wanted) if isinstance(wanted, int) else named_cluster(wanted)


def _unlimited(machine: Cluster) -> Cluster:
    return replace(machine, devices=tuple(replace(d, memory=inf) for d in machine.devices))


def _limited(machine: Cluster, memory: int | None) -> Cluster:
    limit = inf if memory is None else memory
    return replace(machine, devices=tuple(replace(d, memory=min(limit, d.memory)) for d in machine.devices))
