"""The names of common devices, without torch, so that the shell completes them at once."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("clusters")


def device_names() -> list[str]:
    """The devices whose files come with the package: "h200"."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))
