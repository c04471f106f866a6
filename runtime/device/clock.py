"""Time stamps in the stream of a device, taken without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Instant = Callable[[], float]  # -> seconds of the host's clock; waits until the device has reached the stamp
DeviceClock = Callable[[], Instant]  # -> a stamp after all work that this thread has queued on the device


def clock_of(device: torch.device) -> DeviceClock:
    """The clock of a device, on this thread's current stream.  Waits once, until the device is idle."""
    return _host_clock if device.type == "cpu" else _device_clock(device)


def _host_clock() -> Instant:
    now = time.perf_counter()
    return lambda: now


def _device_clock(device: torch.device) -> DeviceClock:
    """A clock of events.  All clocks of a host agree to within the time of one kernel launch."""
    torch.accelerator.synchronize(device)
    host, zero = time.perf_counter(), _event(device)

    def now() -> Instant:
        event = _event(device)

        def seconds() -> float:
            event.synchronize()
            return host + zero.elapsed_time(event) / 1000

        return seconds

    return now


def _event(device: torch.device) -> torch.Event:
    event = torch.Event(device, enable_timing=True)
    event.record()
    return event
