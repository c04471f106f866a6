"""Folders of timm: config.json with an architecture, and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ir.sources.folders import CONFIG
from ir.sources.libraries.known_folder import LibraryCall, LibraryFolder, settings_of


def timm_folder(path: Path) -> LibraryFolder | None:
    """The folder, if it is one of timm."""
    settings = settings_of(path / CONFIG)
    if "architecture" not in settings or "pretrained_cfg" not in settings:
        return None
    name = f"local-dir:{path.resolve()}"
    return LibraryFolder(
        path,
        "timm",
        "timm",
        make=lambda timm: timm.create_model(name, pretrained=False),
        call=_call,
        load=lambda timm: timm.create_model(name, pretrained=True),
        weights=path,
    )


def _call(model: Any) -> LibraryCall:
    size = tuple(model.pretrained_cfg.get("input_size") or (3, 224, 224))
    return LibraryCall({"x": torch.randn(2, *size)}, {"x": {0: "batch"}})
