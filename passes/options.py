"""Options of passes: a dataclass field that is also a command-line flag."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A field with a default and the text that `--help` shows for its flag."""
    return field(default=default, metadata={"help": help})
