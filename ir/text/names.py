"""Names in a message: the first of them, and the number of the others."""

from __future__ import annotations

from collections.abc import Sequence


def listed_names(names: Sequence[str], most: int = 5) -> str:
    """The first names, and the number of the others: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
