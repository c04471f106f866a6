"""Manifests of schema 2, which had one program and no list of programs."""

from __future__ import annotations

from typing import Any

_OF_PROGRAM = ("inputs", "outputs", "symbols", "guards", "signature", "microbatching", "layouts", "nodes", "returns")
_OF_STAGE = ("weights", "device", "nbytes")  # in a stage; all others are those of its program
_GONE = ("matched",)


def from_schema_2(table: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a manifest of schema 2 as schema 3 has it.  Raises KeyError, TypeError or AttributeError."""
    stages, weights = table["stages"], table.get("weights", ())
    program = {
        "name": "main",
        **{key: table[key] for key in _OF_PROGRAM if key in table},
        "stages": [{key: row[key] for key in row if key not in (*_OF_STAGE, *_GONE)} for row in stages],
        "updates": {row["tensor"]["name"]: row["becomes"] for row in weights if row.get("becomes")},
    }
    return {
        **{key: value for key, value in table.items() if key not in _OF_PROGRAM},
        "schema": 3,
        "programs": [program],
        "stages": [{key: row[key] for key in _OF_STAGE} for row in stages],
        "weights": [{key: row[key] for key in row if key != "becomes"} for row in weights],
    }
