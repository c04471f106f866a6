"""What a user names -> the model, its example inputs and its weights."""

from __future__ import annotations

from pathlib import Path

from ir.errors import SourceError
from ir.sources.model_file import read_model_file
from ir.sources.source import Source as Source
from ir.sources.source import uncompiled as uncompiled


def read_source(text: str) -> Source:
    """Read `model.py` or `model.py:function`.  Raises SourceError that says what is missing, and where."""
    path_text, _, function = text.partition(":")
    path = Path(path_text)
    if path.is_dir():
        raise SourceError(f"{path} is a folder; checkpoint folders cannot be read yet: give a model file that loads it")
    if not path.is_file():
        raise SourceError(f"there is no file {path}; give a model file such as examples/gpt2.py")
    if path.suffix != ".py":
        raise SourceError(f"{path} is not a Python file; give a model file such as examples/gpt2.py")
    return read_model_file(path, function or "model")
