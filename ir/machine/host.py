"""What this host has to offer, by rule of thumb; a cluster file says it better."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ir.errors import PlanError
from ir.machine.cluster import Cluster, Device, Link

_GPU_LINK = Link(bandwidth=50e9, latency=10e-6)
_CPU_LINK = Link(bandwidth=4e9, latency=30e-6)  # a queue between threads, or a socket between processes


def host_cluster(count: int) -> Cluster:
    """`count` equal devices: this host's GPUs if it has as many, else shares of its CPU."""
    gpus = count <= torch.cuda.device_count()
    return named_cluster([f"cuda:{i}" for i in range(count)] if gpus else ["cpu"] * count)


def named_cluster(names: Sequence[str]) -> Cluster:
    """Devices of this host by torch's names for them; one that is named often is shared.

    Raises PlanError for one that is not here.
    """
    devices = tuple(_device(torch.device(name), names.count(name)) for name in names)
    return Cluster.uniform(devices, _GPU_LINK if all(d.name != "cpu" for d in devices) else _CPU_LINK)


def _device(device: torch.device, shares: int) -> Device:
    if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
        return _gpu(device.index or 0, shares)
    if device.type == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device("cpu", flops=1e11, bandwidth=2e10, memory=memory // shares, launch=2e-6)
    raise PlanError(f"there is no {device} on this host, which has {torch.cuda.device_count()} GPUs and its CPU")


def _gpu(index: int, shares: int) -> Device:
    memory = torch.cuda.get_device_properties(index).total_memory // shares
    return Device(f"cuda:{index}", flops=4e14, bandwidth=2e12, memory=memory, launch=5e-6)


def device_here(name: str) -> torch.device:
    """A device of this host by torch's name for it.  Raises PlanError for one that is not here."""
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise PlanError(f"{name!r} is no name of a device that torch knows; --cost roofline needs none") from e
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        raise PlanError(
            f"there is no {name} on this host, which has {torch.cuda.device_count()} GPUs and its CPU, and"
            " --cost profiled times operators on the devices; run it there, or use --cost roofline"
        )
    return torch.device("cuda", device.index or 0)
