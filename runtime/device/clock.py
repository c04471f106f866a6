"""When something happens on a device, without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Instant = Callable[[], float]  # seconds of the host's clock; ask when the device has come to it
Clock = Callable[[], Instant]  # now, in the order of what the device was given


def clock_of(device: torch.device) -> Clock:
    """Waits until the device has done what it was given."""
    return _host_clock if device.type == "cpu" else _device_clock(device)


def _host_clock() -> Instant:
    now = time.perf_counter()
    return lambda: now


def _device_clock(device: torch.device) -> Clock:
    """Marks the device's current stream.  All clocks of a host agree to the time of one launch."""
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
