"""Streams of accelerators, and the events that order work between them.  The CPU needs neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

POLL = (
    2e-5,
    1e-4,
)  # least and most seconds between two polls of events; else a twentieth of the time so far


def stream_on(device: torch.device) -> torch.Stream | None:
    """A new stream on the device; None for the CPU."""
    return None if device.type == "cpu" else torch.Stream(device)


def within(stream: torch.Stream | None) -> AbstractContextManager[object]:
    """A block in which `stream` is this thread's current one; None changes nothing."""
    return nullcontext() if stream is None else stream


def current_streams(devices: Iterable[torch.device]) -> tuple[torch.Stream, ...]:
    """This thread's current stream on each accelerator among the devices."""
    return tuple(torch.accelerator.current_stream(device) for device in {*devices} if device.type != "cpu")


def made_by_now(tensors: Sequence[torch.Tensor]) -> tuple[torch.Event, ...]:
    """Events after which the tensors exist, if they are computed in this thread's current streams."""
    return tuple(stream.record_event() for stream in current_streams(tensor.device for tensor in tensors))


def made_in(stream: torch.Stream | None) -> tuple[torch.Event, ...]:
    """An event after which all exists that `stream` was given until now; none for the CPU."""
    return () if stream is None else (stream.record_event(),)


def read_in(stream: torch.Stream | None, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> None:
    """Have `stream` wait for the events `ready`.  The tensors' memory is not reused before the stream has read them."""
    if stream is None:
        return
    wait_in(stream, ready)
    for tensor in tensors:
        if tensor.device == stream.device:
            tensor.record_stream(stream)


def wait_in(stream: torch.Stream | None, ready: Sequence[torch.Event]) -> None:
    """Have `stream` wait for the events `ready`."""
    if stream is not None:
        for event in ready:
            stream.wait_event(event)


def wait_for(events: Sequence[torch.Event], check: Callable[[], None]) -> None:
    """Block the host until all `events` have completed, calling `check` meanwhile, which may raise.

    By polling: a blocking wait could not be ended if the device hangs.
    """
    started = time.perf_counter()
    while not all(event.query() for event in events):
        check()
        shortest, longest = POLL
        time.sleep(min(longest, max(shortest, (time.perf_counter() - started) / 20)))
