"""Patches of torch and of Python's library that hold for the whole process while a model is built or exported."""

from __future__ import annotations

from threading import RLock

PATCHING = RLock()
"""Held by the thread that patches: of two that overlap, the last one to end would leave the other's patches behind."""
