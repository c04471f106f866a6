"""Files that artifacts have beside their stages, as modules of a test."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from codegen.text.joined_files import joined_source
from runtime.stage.loader import import_file

_FOLDER = TemporaryDirectory()  # it goes with the process


def as_in_an_artifact(source: ModuleType) -> Any:
    """The module of the file that artifacts have of a module of ours; its kernels' source can be read."""
    place = Path(_FOLDER.name) / f"{source.__name__}.py"
    place.write_text(joined_source(source), encoding="utf-8")
    return import_file(place)
