"""The texts to which the shell completes the value of an option, found without torch, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from glob import escape, iglob
from pathlib import Path
from typing import TypeAlias

from ir.machine.common_devices import device_names

Completions: TypeAlias = Callable[[str], Iterable[str]]
"""The texts that may follow from what has been typed; some may not begin with it."""

_PASSES = Path(__file__).parents[1]
_COUNTS = (1, 2, 4, 8)


def none_known(typed: str) -> Iterable[str]:
    """Nothing, for values of which any number are right."""
    return ()


def these(*texts: str) -> Completions:
    return lambda typed: texts


def passes_and(*others: str) -> Completions:
    """The names of the passes, as their files give them, and `others`."""

    def complete(typed: str) -> Iterable[str]:
        yield from others
        for file in sorted(_PASSES.rglob("*.py")):
            yield from re.findall(r'^    name: ClassVar = "(.+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)

    return complete


def clusters(typed: str) -> Iterable[str]:
    """Common devices in usual numbers, cluster files, and folders that may hold some."""
    yield from (f"{name}x{count}" for name in device_names() for count in _COUNTS)
    for path in sorted(iglob(f"{escape(typed)}*")):
        if Path(path).is_dir():
            yield f"{path}/"
        elif path.endswith(".toml"):
            yield path
