"""Time of a repeated call on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from runtime.device.clock import DeviceClock, Instant, clock_of
from runtime.device.kinds import kind_of

ShowProgress = Callable[[str], object]  # shows a line of text while the measurement goes on


def measuring_clock(device: torch.device) -> DeviceClock:
    """The clock of a device; with one CPU thread its CPU time, which other processes of a busy host do not change."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return _thread_clock
    return clock_of(device)


def median_seconds(call: Callable[[], Any], device: torch.device, budget: float, rest: float = 0.0) -> float:
    """The median seconds of a call, over one or more trials of some calls each, within a `budget` of seconds.

    `rest`: the pause after each trial, as a share of what the trial took.
    """
    clock = measuring_clock(device)
    once = min(_trial(call, clock, 1) for _ in range(2))  # the first call also initializes
    if once > budget:
        return once
    calls = max(1, min(100, int(budget / 10 / max(once, 1e-7))))
    trials = [once] if calls == 1 else []
    began = time.perf_counter()
    while not trials or (time.perf_counter() - began < budget and len(trials) < 50):
        trials.append(_trial(call, clock, calls))
        time.sleep(rest * trials[-1] * calls)
    return median(trials)


def _thread_clock() -> Instant:
    now = time.thread_time()
    return lambda: now


def _trial(call: Callable[[], Any], clock: DeviceClock, calls: int) -> float:
    """Seconds of a call, over some calls in a row."""
    start = clock()
    for _ in range(calls):
        call()
    end = clock()
    return (end() - start()) / calls


def queued_seconds(call: Callable[[], Any], device: torch.device, calls: int, budget: float) -> float:
    """Device seconds of a call: all are queued before the device starts the first, so it never waits for the host."""
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
    """Host seconds to launch a call on a device whose queue has room."""
    trials: list[float] = []
    for _ in range(9):
        torch.accelerator.synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        trials.append((time.perf_counter() - start) / calls)
    return median(trials)
