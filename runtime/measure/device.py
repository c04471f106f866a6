"""What one device can do: a table for a cluster file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from runtime.device.kinds import kind_of, total_memory
from runtime.measure.contractions import CPU, GPU, Numbers, contractions, random
from runtime.measure.timing import Say, host_seconds, queued_seconds


def measure_device(device: torch.device, say: Say, shares: int = 1, threads: int = 0) -> Numbers:
    """The numbers of a device, or of one of so many SHARES of the CPU."""
    sizes = CPU if device.type == "cpu" else GPU
    with torch.no_grad(), torch.accelerator.device_index(device.index):
        say(f"{device}: starts of kernels")
        numbers = _memory(device, shares) | _starts(device)
        say(f"{device}: memory")
        numbers |= _bandwidths(device, numbers["launch"], sizes.budget)
        if device.type != "cpu":
            numbers |= {"elements": _elements(device, numbers["launch"], sizes.budget)}
        numbers |= contractions(device, sizes, numbers["launch"], say)
    return numbers | ({"threads": threads} if threads else {})


def _memory(device: torch.device, shares: int) -> Numbers:
    if device.type == "cpu":
        return {"memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // shares}
    return {"memory": total_memory(device)}


def _starts(device: torch.device) -> Numbers:
    """A kernel of one row, on the device; and what the host needs for it, with a view for each kernel as in a model."""
    x, w = torch.ones(8, 64, device=device), torch.ones(64, 64, device=device)
    launch = queued_seconds(lambda: x + x, device, 200, 0.2)
    if device.type == "cpu":
        return {"launch": launch}

    def block() -> torch.Tensor:
        y = F.linear(F.layer_norm(x, (64,)), w).view(8, 4, 16).transpose(0, 1)
        y = torch.softmax(y, -1).transpose(0, 1).reshape(8, 64)
        return x + F.linear(F.gelu(y), w)

    return {"launch": launch, "dispatch": host_seconds(block, device) / 7}


def _bandwidths(device: torch.device, launch: float, budget: float) -> Numbers:
    """Bytes per second of a sum, from memory and from the cache, and the most that the cache has room for."""
    speeds: dict[int, float] = {}
    traffic = kind_of(device).traffic
    for nbytes in traffic:
        x = torch.ones(nbytes // 8, device=device)  # read once and written once, in 4 bytes each
        seconds = queued_seconds(lambda x=x: x + 1.0, device, 50, budget)
        speeds[nbytes] = nbytes / max(seconds - launch, 0.2 * seconds)
    memory = speeds[traffic[-1]]
    fast = [nbytes for nbytes, speed in speeds.items() if speed > 1.4 * memory]
    if not fast:
        return {"bandwidth": memory}
    held = [speeds[nbytes] for nbytes in fast[-3:]]
    return {"bandwidth": memory, "cache": max(fast), "cache_bandwidth": sum(held) / len(held)}


def _elements(device: torch.device, launch: float, budget: float) -> float:
    """Those that kernels handle in a second which broadcast, cast or reduce: the mean of some in models."""
    x, wide = (random(device, dtype, 2048, 4096) for dtype in (torch.bfloat16, torch.float32))
    weight, scale = x[0].clone(), wide[:, :1].clone()
    kernels: list[Callable[[], Any]] = [
        lambda: x * weight,
        lambda: x * scale,
        lambda: wide * scale,
        lambda: x.float(),
        lambda: wide.mean(-1, keepdim=True),
        lambda: F.layer_norm(x, (4096,), weight, weight),
    ]
    seconds = [queued_seconds(kernel, device, 20, budget) for kernel in kernels]
    return x.numel() * len(kernels) / sum(max(s - launch, 0.2 * s) for s in seconds)
