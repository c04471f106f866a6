"""Autocast of the caller: what a model computes within it, and graphs without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ir.machine.kinds import HARDWARE_KINDS


def autocast_is_on() -> bool:
    """Whether the thread casts the operands of operators on some kind of device."""
    return any(map(torch.is_autocast_enabled, HARDWARE_KINDS))


@contextmanager
def autocast_as_around() -> Iterator[None]:
    """Enter the autocast that is on, so that an export of the code inside the context records it."""
    with ExitStack() as contexts:
        for device in filter(torch.is_autocast_enabled, HARDWARE_KINDS):
            contexts.enter_context(torch.autocast(device, torch.get_autocast_dtype(device)))
        yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Switch autocast off: the nodes of a graph say themselves what is cast."""
    with ExitStack() as contexts:
        for device in filter(torch.is_autocast_enabled, HARDWARE_KINDS):
            contexts.enter_context(torch.autocast(device, enabled=False))
        yield
