"""Folders of open_clip: open_clip_config.json, and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ir.sources.libraries.known_folder import LibraryCall, LibraryFolder, settings_of

_SETTINGS = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def open_clip_folder(path: Path) -> LibraryFolder | None:
    """The folder, if it is one of open_clip."""
    settings = settings_of(path / _SETTINGS).get("model_cfg")
    if not isinstance(settings, dict):
        return None
    name = f"local-dir:{path.resolve()}"
    return LibraryFolder(
        path,
        "open_clip",
        "open_clip_torch",
        make=lambda open_clip: _made(open_clip, name),
        call=lambda model: _call(model, settings),
        load=lambda open_clip: open_clip.create_model(name),
        weights=next((path / file for file in _WEIGHTS if (path / file).is_file()), path),
    )


def _made(open_clip: Any, name: str) -> nn.Module:
    """The model where it is made: the library moves it to a device, which weights without values cannot be."""
    with patch.object(nn.Module, "to", lambda module, *_, **__: module):
        return open_clip.create_model(name, load_weights=False)


def _call(model: Any, settings: Any) -> LibraryCall:
    size = settings["vision_cfg"].get("image_size", 224)
    sides = size if isinstance(size, (list, tuple)) else (size, size)
    length = getattr(model, "context_length", None) or settings["text_cfg"].get("context_length", 77)
    words = torch.randint(1, settings["text_cfg"].get("vocab_size", 49408), (2, length))
    return LibraryCall(
        {"image": torch.randn(2, 3, *sides), "text": words}, {"image": {0: "images"}, "text": {0: "texts"}}
    )
