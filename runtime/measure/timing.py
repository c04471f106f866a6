"""Seconds that a device takes for a call that it is given over and over."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from runtime.device.clock import DeviceClock, Instant, clock_of
from runtime.device.kinds import kind_of

Say = Callable[[str], object]


def watch_of(device: torch.device) -> DeviceClock:
    """Of one CPU thread the time that it computes: on a busy host that is what an idle one would need."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return _thread_clock
    return clock_of(device)


def median_seconds(call: Callable[[], Any], device: torch.device, budget: float) -> float:
    """The median of trials within some BUDGET of seconds, each of as many calls as last a while; of one at least."""
    clock = watch_of(device)
    once = min(_trial(call, clock, 1) for _ in range(2))  # the first call does much that later ones need not
    if once > budget:
        return once
    calls = max(1, min(100, int(budget / 10 / max(once, 1e-7))))
    trials = [once] if calls == 1 else []
    began = time.perf_counter()
    while not trials or (time.perf_counter() - began < budget and len(trials) < 50):
        trials.append(_trial(call, clock, calls))
    return median(trials)


def _thread_clock() -> Instant:
    now = time.thread_time()
    return lambda: now


def _trial(call: Callable[[], Any], clock: DeviceClock, calls: int) -> float:
    """Seconds of one call, where the device goes on from each to the next."""
    start = clock()
    for _ in range(calls):
        call()
    end = clock()
    return (end() - start()) / calls


def queued_seconds(call: Callable[[], Any], device: torch.device, calls: int, budget: float) -> float:
    """Seconds of the device for a call, all of which stand in its queue when it begins with the first."""
    call()
    if device.type == "cpu":
        return median_seconds(call, device, budget)
    clock = clock_of(device)
    trials: list[float] = []
    for _ in range(5):
        kind_of(device).delay(20e-6 * calls)  # the host needs less to launch a kernel
        trials.append(_trial(call, clock, calls))
        torch.accelerator.synchronize(device)
    return median(trials)


def host_seconds(call: Callable[[], Any], device: torch.device, calls: int = 50) -> float:
    """Seconds of the host to give a call to the device, whose queue has room."""
    trials: list[float] = []
    for _ in range(9):
        torch.accelerator.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        trials.append((time.perf_counter() - start) / calls)
    return median(trials)
