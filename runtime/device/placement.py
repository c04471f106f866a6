"""The devices of this host, and which of them runs which stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.errors import DeviceError


def available() -> list[torch.device]:
    """The CPU and the accelerators that torch sees."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return [torch.device("cpu")]
    count = torch.accelerator.device_count()
    return [torch.device("cpu"), *(torch.device(accelerator.type, i) for i in range(count))]


def place_stages(planned: Sequence[str], devices: Sequence[str | torch.device] | None) -> tuple[torch.device, ...]:
    """The device of each stage, given the PLANNED one of each.

    DEVICES holds one for each stage; or one for each device of the plan, in the order in which the
    stages use them; or fewer, and neighbouring devices of the plan share one.  None: as planned.
    Raises DeviceError where there are more than can be used, or where one is not here.
    """
    if devices is None:
        return tuple(_find(name, "the plan's device", "; pass devices=[…] to use others") for name in planned)
    distinct = list(dict.fromkeys(planned))
    if len(devices) not in (*range(1, len(distinct) + 1), len(planned)):
        raise DeviceError(f"got {len(devices)} devices for {len(planned)} stages planned on {', '.join(distinct)}")
    found = [_find(device, "device", "") for device in devices]
    if len(found) == len(planned):
        return tuple(found)
    shared = {name: found[i * len(found) // len(distinct)] for i, name in enumerate(distinct)}
    return tuple(shared[name] for name in planned)


def spread_stages(planned: Sequence[str], processes: int) -> tuple[int, ...]:
    """The process of each stage, given the PLANNED device of each.

    One for each stage; or as many as the plan has devices, or fewer, and neighbouring ones share a process.
    Raises DeviceError where there are more processes than stages.
    """
    stages, distinct = len(planned), list(dict.fromkeys(planned))
    if processes not in range(1, stages + 1):
        raise DeviceError(f"got {processes} processes for {stages} stages; start {stages} at most")
    if processes > len(distinct):
        return tuple(i * processes // stages for i in range(stages))
    return tuple(distinct.index(name) * processes // len(distinct) for name in planned)


def device_of_process(planned: str, device: str | torch.device | None, local_rank: int) -> torch.device:
    """The DEVICE, or one of the PLANNED kind: of several on this host, each process takes another.

    Raises DeviceError where it is not here.
    """
    if device is not None:
        return _find(device, "device", "")
    kind = planned.partition(":")[0]
    count = sum(found.type == kind for found in available())
    name = kind if count == 0 or kind == "cpu" else f"{kind}:{local_rank % count}"
    return _find(name, "the plan's device", "; pass device=… to use another")


def _find(name: str | torch.device, role: str, advice: str) -> torch.device:
    here = available()
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
