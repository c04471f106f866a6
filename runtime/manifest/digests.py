"""Digests: of a file, of a sample of a large one, of a value, and the seal of a manifest."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any


def seal_of(table: dict[str, Any]) -> str:
    """The seal of a manifest, as JSON or as `as_table` has it."""
    return digest_of({key: value for key, value in table.items() if key != "seal"})


def digest_of(value: Any) -> str:
    """sha256 of a value's JSON, in hexadecimal."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sample_hash(path: Path, blocks: int = 64, size: int = 1 << 16) -> str:
    """sha256 of a file's length and of `blocks` equally spaced blocks of `size` bytes, in hexadecimal.

    It detects another checkpoint, or another version of one, without reading 100 GB at each load.  It does not
    detect a few flipped bits.
    """
    length = path.stat().st_size
    digest = sha256(str(length).encode())
    with path.open("rb") as f:
        for i in range(blocks):
            f.seek(max(0, length - size) * i // (blocks - 1))
            digest.update(f.read(size))
    return digest.hexdigest()
