"""The devices of this host, and the placement of stages on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from runtime.errors import DeviceError


def available() -> list[torch.device]:
    """The CPU and the accelerators of this host."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return [torch.device("cpu")]
    count = torch.accelerator.device_count()  # asks no driver that a copy of this process could not use any more
    return [torch.device("cpu"), *(torch.device(accelerator.type, i) for i in range(count))]


def place_stages(
    planned: Sequence[str], devices: Sequence[str | torch.device] | str | torch.device | None
) -> tuple[torch.device, ...]:
    """The device of each stage.  `planned`: the plan's device of each.

    `devices`: one for each stage; or one for each device of the plan, in the order in which the stages use
    them; or fewer, which neighbouring devices of the plan then share.  None: as planned.
    Raises DeviceError if `devices` are no devices, none or too many, or if one is not here.
    """
    if devices is None:
        return tuple(_find(name, "the plan's device", "; pass devices=[…] to use others") for name in planned)
    devices = _sequence(devices)
    distinct = list(dict.fromkeys(planned))
    if len(devices) not in (*range(1, len(distinct) + 1), len(planned)):
        raise DeviceError(f"got {len(devices)} devices for {len(planned)} stages planned on {', '.join(distinct)}")
    found = [_find(device, "device", "") for device in devices]
    if len(found) == len(planned):
        return tuple(found)
    shared = {name: found[i * len(found) // len(distinct)] for i, name in enumerate(distinct)}
    return tuple(shared[name] for name in planned)


def spread_stages(planned: Sequence[str], processes: int) -> tuple[int, ...]:
    """The process of each stage.  `planned`: the plan's device of each.

    `processes`: as many as stages; or as many as the plan has devices, or fewer, and neighbouring devices share one.
    Raises DeviceError if there are more processes than stages.
    """
    stages, distinct = len(planned), list(dict.fromkeys(planned))
    if processes not in range(1, stages + 1):
        raise DeviceError(f"got {processes} processes for {stages} stages; start {stages} at most")
    if processes > len(distinct):
        return tuple(i * processes // stages for i in range(stages))
    return tuple(distinct.index(name) * processes // len(distinct) for name in planned)


def device_of_process(planned: str, device: str | torch.device | None, local_rank: int) -> torch.device:
    """The device of a process: `device`, or the one of the planned kind whose index is the process's local rank.

    Raises DeviceError if it is not here.
    """
    if device is not None:
        return _find(device, "device", "")
    kind = planned.partition(":")[0]
    count = sum(found.type == kind for found in available())
    name = kind if count == 0 or kind == "cpu" else f"{kind}:{local_rank % count}"
    return _find(name, "the plan's device", "; pass device=… to use another")


def places_text(devices: Sequence[torch.device]) -> str:
    """The devices of all stages, for people: "stages 0-1 on cuda:0, stage 2 on cuda:1"."""
    runs = [[*group] for _, group in groupby(range(len(devices)), key=devices.__getitem__)]
    spans = (f"stages {run[0]}-{run[-1]}" if len(run) > 1 else f"stage {run[0]}" for run in runs)
    return ", ".join(f"{span} on {devices[run[0]]}" for span, run in zip(spans, runs, strict=True))


def _sequence(devices: object) -> list[str | torch.device]:
    """The devices that a caller names, who may pass anything.  Raises DeviceError."""
    devices = [devices] if isinstance(devices, (str, torch.device)) else devices
    wanted = 'such as devices=["cuda:0", "cuda:1"]'
    if not isinstance(devices, Sequence):
        raise DeviceError(f"devices is {devices!r}, which names no device; pass a list, {wanted}")
    if not devices:
        raise DeviceError(f"devices is empty; pass one device at least, {wanted}, or leave it out for the plan's")
    for device in devices:
        if not isinstance(device, (str, torch.device)):
            raise DeviceError(f"devices holds {device!r}, which is no device's name; pass names, {wanted}")
    return list(devices)


def _find(name: str | torch.device, role: str, advice: str) -> torch.device:
    """A device of this host.  Raises DeviceError, which calls it by its `role` and ends with the `advice`."""
    here = available()
    if not isinstance(name, (str, torch.device)):
        raise DeviceError(f"{role} is {name!r}, which is no device's name; this host has {_join(here)}{advice}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"{role} {name!r} is no device; this host has {_join(here)}{advice}") from None
    if device.type == "cpu":
        return torch.device("cpu")  # "cpu:1" is the same memory
    device = torch.device(device.type, device.index or 0)
    if device not in here:
        raise DeviceError(f"{role} {device} is not here; this host has {_join(here)}{advice}")
    return device


def _join(devices: Sequence[torch.device]) -> str:
    return ", ".join(map(str, devices))
