"""JSON as people's files have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ir.errors import SourceError


def parsed_json(text: str | bytes) -> Any:
    """The value of a JSON text.  Raises ValueError where it is none, or nested deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("its lists are nested too deep") from e


def json_file(file: Path) -> Any:
    """The value of a file of JSON.  Raises SourceError where it cannot be read."""
    try:
        return parsed_json(file.read_text())
    except (OSError, ValueError) as e:
        raise SourceError(f"cannot read {file}: {e}") from e
