"""Checks of the options of a pipeline."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from runtime.errors import demand

PREFILL_SHARE = 0.8
"""Chunks of prompts among the batches of a decoder while other texts go on, by default: four, then a step of these."""


def checked_folder(folder: Any, timeout: Any, tokens: Any, **switches: Any) -> Path:
    """The folder of an artifact.  Raises InputError for options that are of no use."""
    demand(isinstance(folder, (str, PathLike)), "the artifact", folder, "the path of a folder")
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    demand(timeout is None or (number and timeout > 0), "timeout", timeout, "a number of seconds above 0, or None")
    demand(tokens is None or is_count(tokens), "tokens", tokens, "a number of tokens, at least 1, or None")
    for name, value in switches.items():
        demand(isinstance(value, bool), name, value, "True or False")
    return Path(folder)


def check_ways(processes: Any, outputs: Any, prefill_share: Any) -> None:
    """Raises InputError for a way to run stages, or to return outputs, that there is not."""
    share = isinstance(prefill_share, (int, float)) and 0 < prefill_share <= 1
    demand(share, "prefill_share", prefill_share, "a number above 0 and at most 1")
    demand(processes is None or isinstance(processes, bool), "processes", processes, "True, False or None")
    demand(outputs in ("return", "stay"), "outputs", outputs, '"return" or "stay"')


def is_whole_number(value: Any) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 1."""
    return is_whole_number(value) and value >= 1
