"""JSON as people's files have it."""

from __future__ import annotations

import json
from typing import Any


def parsed_json(text: str | bytes) -> Any:
    """The value of a JSON text.  Raises ValueError where it is none, or nested deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("its lists are nested too deep") from e
