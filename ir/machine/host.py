"""The devices of this host, with numbers of a common device or by rule of thumb; a measured file has better ones."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from ir.errors import PlanError
from ir.machine.cluster import Cluster, Device, Link
from ir.machine.common_devices import device_names
from ir.machine.kinds import HARDWARE_KINDS
from ir.machine.named import read_cluster

FLASH_SINCE = (8, 0)  # the compute capability of the first GPUs that have flash attention


def accelerators() -> list[torch.device]:
    """The accelerators of this host whose kind is known."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type not in HARDWARE_KINDS:
        return []
    return [torch.device(found.type, i) for i in range(torch.accelerator.device_count())]


def lacks_flash_attention() -> bool:
    """Whether an accelerator of this host is older than flash attention: plans for its kind may be for it."""
    found = accelerators()
    capability = getattr(torch.get_device_module(found[0]), "get_device_capability", None) if found else None
    told = [capability(device) for device in found] if capability else []
    return any(isinstance(version, tuple) and version < FLASH_SINCE for version in told)


def host_cluster(count: int) -> Cluster:
    """`count` equal devices: accelerators of this host if it has as many, else shares of its CPU."""
    found = accelerators()
    return named_cluster([str(d) for d in found[:count]] if count <= len(found) else ["cpu"] * count)


def named_cluster(names: Sequence[str]) -> Cluster:
    """Devices of this host by torch's names for them; one that is named several times is shared.

    Raises PlanError if one is not here, or if there are none.
    """
    if not names:
        raise PlanError("there must be one device at least")
    devices = tuple(_device(name, names.count(name)) for name in names)
    return Cluster.uniform(devices, min(map(_link, devices), key=lambda link: link.bandwidth))


def device_here(name: str) -> torch.device:
    """A device of this host by torch's name for it.  Raises PlanError if it is not here."""
    found = _found(name, "; --cost roofline needs none")
    if found is None:
        raise PlanError(
            f"there is no {name} on this host, which has {_here()}, and"
            " --cost profiled times operators on the devices; run it there, or use --cost roofline"
        )
    return found


def _device(name: str, shares: int) -> Device:
    device = _found(name)
    if device is None:
        raise PlanError(f"there is no {name} on this host, which has {_here()}")
    kind = HARDWARE_KINDS[device.type]
    memory = _memory(device) // shares
    if common := _common_name(device):
        return replace(read_cluster(f"{common}x1").devices[0], name=str(device), memory=memory)
    return Device(
        str(device),
        flops=kind.flops,
        bandwidth=kind.bandwidth,
        memory=memory,
        launch=kind.launch,
        unaligned_product=kind.unaligned_product,
    )


def _link(device: Device) -> Link:
    """Between two such devices."""
    found = torch.device(device.name)
    if common := _common_name(found):
        return read_cluster(f"{common}x2").links[0, 1]
    return HARDWARE_KINDS[found.type].link


def _common_name(device: torch.device) -> str:
    """The name of a common device, such as "h200"; "" for others, as of the same chip on a slower board."""
    if device.type == "cpu":
        return ""
    words = re.split(r"\W+", torch.get_device_module(device).get_device_properties(device).name.lower())
    return next((name for name in device_names() if name in words and not {"pcie", "nvl"} & {*words}), "")


def _found(name: str, advice: str = "") -> torch.device | None:
    """The device with its index, "cpu:1" as "cpu"; None if it is not here.  Raises PlanError for no device's name."""
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise PlanError(f"{name!r} is no name of a device that torch knows{advice}") from e
    if device.type == "cpu":
        return torch.device("cpu")
    device = torch.device(device.type, device.index or 0)
    return device if device in accelerators() else None


def _memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return torch.get_device_module(device).get_device_properties(device).total_memory


def _here() -> str:
    return f"{len(accelerators())} GPUs and its CPU"
