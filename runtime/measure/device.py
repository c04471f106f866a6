"""The table of one device for a cluster file: memory, bandwidths, launch and contractions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from runtime.device.kinds import kind_of, total_memory
from runtime.measure.contractions import CPU, GPU, Numbers, contractions, random
from runtime.measure.timing import ShowProgress, host_seconds, queued_seconds


def measure_device(device: torch.device, say: ShowProgress, shares: int = 1, threads: int = 0) -> Numbers:
    """The numbers of a device, or of one of `shares` equal shares of the CPU, of `threads` each.  `say`: progress."""
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
    """`launch`: device seconds of a tiny kernel; `dispatch`: host seconds of one, with a view a kernel as in models."""
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
    """Bytes per second of a sum, from memory and from the cache, and the bytes of the cache."""
    speeds: dict[int, float] = {}
    traffic = kind_of(device).traffic
    for nbytes in traffic:
        x = torch.ones(nbytes // 8, device=device)  # 4 bytes each, read once and written once
        seconds = queued_seconds(lambda x=x: x + 1.0, device, 50, budget)
        speeds[nbytes] = nbytes / max(seconds - launch, 0.2 * seconds)
    memory = speeds[traffic[-1]]
    fast = [nbytes for nbytes, speed in speeds.items() if speed > 1.4 * memory]
    if not fast:
        return {"bandwidth": memory}
    held = [speeds[nbytes] for nbytes in fast[-3:]]
    return {"bandwidth": memory, "cache": max(fast), "cache_bandwidth": sum(held) / len(held)}


def _elements(device: torch.device, launch: float, budget: float) -> float:
    """Elements per second of kernels that broadcast, cast or reduce: the mean of some that models use."""
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
