"""Graph -> Graph, one file a pass; and the ways in: compile_model, auto_partition."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passes.api import compile_model as compile_model
    from passes.auto import auto_partition as auto_partition

_WAYS_IN = {"compile_model": "passes.api", "auto_partition": "passes.auto"}


def __getattr__(name: str) -> Any:
    """A way in is imported when it is asked for: torch takes seconds, for which the command line must not wait."""
    if name not in _WAYS_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WAYS_IN[name]), name)
