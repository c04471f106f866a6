"""Switches in a transformers configuration that are set so that its model can be exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_EXPORTABLE = (None, "eager", "sdpa")


def switch(config: Any, caches: bool) -> tuple[str, ...]:
    """Set a configuration and those inside it for export; returns a note for each change.

    `caches`: whether the model can return a cache for a later call.
    """
    notes: dict[str, None] = {}
    for inner in _all(config):
        notes |= dict.fromkeys(_switch(inner, caches))
    return tuple(notes)


def _all(config: Any) -> Iterator[Any]:
    yield config
    for name in config.sub_configs:
        if (inner := getattr(config, name, None)) is not None:
            yield from _all(inner)


def _switch(config: Any, caches: bool) -> Iterator[str]:
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    if getattr(config, "use_cache", False):
        if caches:
            yield "use_cache is off: each call computes the whole sequence"
        config.use_cache = False
    if config._attn_implementation not in _EXPORTABLE:
        yield f"attention is sdpa in place of {config._attn_implementation}"
        config._attn_implementation = None  # sdpa where the model has it, else eager
    if config._experts_implementation not in (None, "grouped_mm", "batched_mm"):
        yield f"experts are grouped_mm in place of {config._experts_implementation}"
        config._experts_implementation = None  # grouped_mm where the model has it
