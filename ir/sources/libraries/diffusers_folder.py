"""Folders of diffusers: one model of a pipeline, config.json with its class, and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ir.sources.folders import CONFIG
from ir.sources.libraries.diffusers_calls import CALLS
from ir.sources.libraries.known_folder import LibraryFolder, settings_of


def diffusers_folder(path: Path) -> LibraryFolder | None:
    """The folder, if it is one of diffusers with a model whose arguments are known."""
    settings = settings_of(path / CONFIG)
    name = str(settings.get("_class_name", ""))
    if "_diffusers_version" not in settings or name not in CALLS:
        return None

    def make(diffusers: Any) -> nn.Module:
        cls = getattr(diffusers, name)
        return cls.from_config(cls.load_config(path))

    return LibraryFolder(
        path,
        "diffusers",
        "diffusers",
        make=make,
        call=lambda model: CALLS[name](model.config),
        load=lambda diffusers: getattr(diffusers, name).from_pretrained(path, local_files_only=True),
        weights=path,
    )
