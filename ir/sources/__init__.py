"""What a user names -> the model, its example inputs and its weights."""

from __future__ import annotations

from pathlib import Path

from ir.errors import SourceError
from ir.sources.checkpoint_folder import read_checkpoint_folder
from ir.sources.meta import with_values as with_values
from ir.sources.model_file import read_model_file
from ir.sources.source import Reading as Reading
from ir.sources.source import Source as Source
from ir.sources.source import uncompiled as uncompiled

_WAYS = "give a model file such as examples/gpt2.py, or a checkpoint folder"


def read_source(text: str, reading: Reading = Reading()) -> Source:  # noqa: B008 - frozen
    """Read `model.py`, `model.py:function` or a checkpoint folder.  Raises SourceError that says what is missing."""
    path = Path(text)
    if path.is_dir():
        return read_checkpoint_folder(path, reading)
    path_text, _, function = text.partition(":")
    path = Path(path_text)
    if not path.is_file():
        raise SourceError(f"there is no file {path}; {_WAYS}")
    if path.suffix != ".py":
        raise SourceError(f"{path} is not a Python file; {_WAYS}")
    return read_model_file(path, reading, function or "model")
