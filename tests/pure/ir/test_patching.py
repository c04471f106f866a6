"""Patches for the whole process, by two threads that would overlap."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Thread

import pytest
from torch import nn

from ir.capture.export.recording import quiet
from ir.sources.meta import parameters_on_meta


def patched() -> tuple[object, ...]:
    return logging.Logger.debug, logging.root.manager.disable, nn.Module.register_parameter, nn.init._no_grad_normal_


@pytest.mark.parametrize("patching", [quiet, parameters_on_meta])
def test_threads_that_patch_leave_nothing_patched(patching: Callable[[], AbstractContextManager[None]]) -> None:
    before, begun, left = patched(), Event(), Event()

    def second() -> None:
        with patching():
            begun.set()
            left.wait()  # the first one ends while this one has begun, if it could

    thread = Thread(target=second)
    with patching():
        thread.start()
        overlaps = begun.wait(0.05)
    left.set()
    thread.join()
    assert begun.is_set()
    assert not overlaps
    assert patched() == before
