"""Memory that this process has asked for and not given back, whatever others have, or the allocators keep for later."""

from __future__ import annotations

import ctypes
import gc
import sys

import pytest


class _MallocState(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "mapped",
            "usmblks",
            "fsmblks",
            "in_use",
            "fordblks",
            "keepcost",
        ]
    ]


def held_memory() -> tuple[int, int]:
    """The bytes that malloc has given out, which hold the data of tensors on the CPU, and the blocks that Python has.

    Skips the test without the GNU C library of version 2.33.
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        pytest.skip("malloc says what it has given out in glibc 2.33 and later")
    ask.restype = _MallocState
    gc.collect()
    state = ask()
    return state.in_use + state.mapped, sys.getallocatedblocks()
