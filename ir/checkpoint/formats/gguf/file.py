"""The fields and tensors of a GGUF file, or of all files that one was split into."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ir.errors import SourceError, in_one_line

SUFFIX = ".gguf"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")  # as llama.cpp names them


@dataclass(frozen=True, eq=False)
class GgufFile:
    """A GGUF file, mapped into memory: what it says, and the package's own entry of each tensor by its name."""

    path: Path  # the first, of several
    library: Any  # the package `gguf`
    fields: Mapping[str, Any]
    entries: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Open a file with all others that one was split into.

        Raises SourceError where the package is not installed, a part is missing, or one is damaged.
        """
        library = gguf_package(path)
        parts = _parts(path)
        try:
            readers = [library.GGUFReader(part) for part in parts]
        except Exception as e:  # of the library
            raise SourceError(f"cannot read {path}: {in_one_line(e)}; fetch it again") from e
        entries = {entry.name: entry for reader in readers for entry in reader.tensors}
        return cls(parts[0], library, readers[0].fields, entries)

    @property
    def architecture(self) -> str:
        """The kind of model, as llama.cpp calls it; empty where the file names none."""
        return str(self.said("general.architecture") or "")

    def said(self, key: str) -> Any:
        """The value of a field; None where there is none."""
        return self.fields[key].contents() if key in self.fields else None

    def setting(self, key: str) -> Any:
        """The value of a field of the architecture."""
        return self.said(f"{self.architecture}.{key}")

    def has(self, part: str) -> bool:
        """Whether a tensor has `part` in its name."""
        return any(part in name for name in self.entries)

    def read(self, name: str) -> torch.Tensor | None:
        """A tensor in float32, dequantized; None where there is none."""
        if (entry := self.entries.get(name)) is None:
            return None
        return torch.from_numpy(self.library.dequantize(entry.data, entry.tensor_type).copy()).float()


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file: a folder may have such a name, too."""
    return path.suffix == SUFFIX and path.is_file()


def first_parts(files: Sequence[Path]) -> list[Path]:
    """The files of a folder that are no later part of one that was split."""
    return [file for file in files if not (part := _PART.search(file.name)) or int(part[1]) == 1]


def gguf_package(path: Path) -> Any:
    """The package that reads GGUF files.  Raises SourceError where it is not installed."""
    try:
        return import_module("gguf")
    except ImportError as e:
        raise SourceError(f"{path} is a GGUF file, and {e.name} is not installed; pip install 'stagecut[gguf]'") from e


def _parts(path: Path) -> list[Path]:
    """The files that one was split into, in order.  Raises SourceError for one that is missing."""
    if (part := _PART.search(path.name)) is None:
        return [path]
    parts = [
        path.with_name(f"{path.name[: part.start()]}-{i:05}-of-{part[2]}{SUFFIX}") for i in range(1, int(part[2]) + 1)
    ]
    if missing := next((part for part in parts if not part.is_file()), None):
        raise SourceError(f"{path} is one of {len(parts)} files, of which {missing.name} is not here; fetch it, too")
    return parts
