"""The choice between the stages of a pipeline on threads of this process, and in processes of their own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

import torch

from runtime.device.ipc import is_shareable
from runtime.device.kinds import kind_of
from runtime.device.placement import spread_stages
from runtime.errors import DeviceError
from runtime.manifest.manifest import Manifest

LEAST_SECONDS = 0.05  # of a stage for a batch, on CPUs: a hop between processes takes a hundredth of it
LEAST_BYTES = 500e6  # of weights for each process, on CPUs: a process itself takes less than half of that


def processes_of(manifest: Manifest, placed: Sequence[torch.device], forced: bool | None) -> tuple[int, ...]:
    """The process of each stage, from 1; 0 is this one.  Empty where the stages run on threads of this process alone.

    `placed`: the device of each stage.  `forced`: whether there must be processes; None: where they are faster, if, for
    a decoder, accelerators reach each other (see `reach_next`).  Of a decoder, this process runs the stages of the
    first of several accelerators, so that a token goes there from the last one without the host.
    Raises DeviceError where there must be some and cannot.
    """
    if forced is False:
        return ()
    why = _obstacle(manifest)
    if why:
        if forced:
            raise DeviceError(f"the stages cannot run in processes of their own: {why}")
        return ()
    if any(device.type != "cpu" for device in placed):
        distinct, is_decoder = [*dict.fromkeys(placed)], bool(manifest.generation.page)
        if not forced and (len(distinct) == 1 or (is_decoder and not _may_reach(distinct))):
            return ()
        first = 0 if is_decoder and len(distinct) > 1 else 1
        return tuple(first + distinct.index(device) for device in placed)
    planned = [stage.device for stage in manifest.stages]
    count = len({*planned}) if len({*planned}) > 1 else len(planned)
    if not forced:
        count = min(count, _cores())
    if count < 2 or not (forced or _is_worth_it(manifest, count)):
        return (1,) * len(planned) if forced else ()
    return tuple(1 + process for process in spread_stages(planned, count))


def _may_reach(devices: Sequence[torch.device]) -> bool:
    """Whether devices are of one kind whose memory processes can share: `reach_next` tells more."""
    return len({device.type for device in devices}) == 1 and kind_of(devices[0]).ipc is not None


def reach_next(placed: Sequence[torch.device]) -> bool:
    """Whether each device can read the memory of the one before it, and the first of the last; sets the devices up."""
    distinct = [*dict.fromkeys(placed)]
    return all(map(is_shareable, distinct, distinct[1:] + distinct[:1]))


def _cores() -> int:
    """The cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_worth_it(manifest: Manifest, count: int) -> bool:
    seconds = manifest.plan.get("bottleneck_seconds", 0.0)
    nbytes = sum(stage.nbytes for stage in manifest.stages)
    return (
        seconds >= LEAST_SECONDS
        and nbytes >= count * LEAST_BYTES
        and all(s.device.startswith("cpu") for s in manifest.stages)
    )


def _obstacle(manifest: Manifest) -> str:
    """A reason why another process could not run the stages; empty if there is none."""
    if not sys.executable:
        return "this Python cannot start another"
    if not hasattr(socket, "AF_UNIX") or not hasattr(socket, "send_fds"):
        return "this system has no sockets that pass files on"
    unknown = [operator.name for operator in manifest.operators if not operator.module]
    return f"the operator {unknown[0]} is registered in this one alone" if unknown else ""
