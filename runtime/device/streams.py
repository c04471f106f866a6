"""The order of work on accelerators: streams, and the events between them.  For the CPU there is nothing to order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

LOOK = (2e-5, 1e-4)  # seconds between two looks at what a device has done: a twentieth of the time so far, within this


def stream_on(device: torch.device) -> torch.Stream | None:
    """A new stream; None on the CPU."""
    return None if device.type == "cpu" else torch.Stream(device)


def within(stream: torch.Stream | None) -> AbstractContextManager[object]:
    """What this thread gives to the stream's device goes into the stream."""
    return nullcontext() if stream is None else stream


def current_streams(devices: Iterable[torch.device]) -> tuple[torch.Stream, ...]:
    """Those that this thread uses on the accelerators among the devices."""
    return tuple(torch.accelerator.current_stream(device) for device in {*devices} if device.type != "cpu")


def made_by_now(tensors: Sequence[torch.Tensor]) -> tuple[torch.Event, ...]:
    """The events after which the tensors are there, if this thread's current streams make them."""
    return tuple(stream.record_event() for stream in current_streams(tensor.device for tensor in tensors))


def read_in(stream: torch.Stream | None, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> None:
    """Have the stream wait until the tensors are there.  Their memory is not used anew before it has read them."""
    if stream is None:
        return
    for event in ready:
        stream.wait_event(event)
    for tensor in tensors:
        if tensor.device == stream.device:
            tensor.record_stream(stream)


def wait_for(events: Sequence[torch.Event], look: Callable[[], None]) -> None:
    """Have the host wait until they have come, and LOOK meanwhile, which may raise.

    Not in one call, which nothing would end where a device hangs.
    """
    started = time.perf_counter()
    while not all(event.query() for event in events):
        look()
        shortest, longest = LOOK
        time.sleep(min(longest, max(shortest, (time.perf_counter() - started) / 20)))
