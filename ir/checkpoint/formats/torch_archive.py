"""Archives of torch.save -> the object in them, with fake tensors that know where their bytes lie."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ir.checkpoint.formats.inert import InertUnpickler
from ir.errors import SourceError, in_one_line

ZIP = b"PK\x03\x04"
"""The first bytes of a file of torch.save."""

_LENGTHS = 26
"""The byte of a file's header in an archive at which its last two lengths begin."""

_PROGRAMS = {
    "/constants.pkl": "TorchScript; save its state dict",
    "/archive_format": "torch.export; give it in place of the model, or save its state dict",
}
"""The kinds of programs, with what to do, by the ends of names in their archives."""


def _pickle_module(places: Mapping[str, tuple[int, int]]) -> SimpleNamespace:
    """A stand-in for the module `pickle`, which torch.load takes.

    `places`: the first byte of each storage of an archive and its length, by its key.  torch reckons the first itself,
    by the order in which it would write the storages, which is another one where the archive was packed again; and it
    compares the length only where it reads the bytes.
    """

    class Placing(InertUnpickler):
        def load(self) -> Any:
            given = self.persistent_load

            def placed(saved: Any) -> Any:
                typed = given(saved)
                if places:
                    storage, (start, length) = typed._untyped_storage, places[str(saved[2])]
                    if storage.nbytes() != length:
                        raise ValueError(f"a storage of {storage.nbytes()} bytes in {length}")
                    storage._checkpoint_offset = start
                return typed

            self.persistent_load = placed
            return super().load()

    return SimpleNamespace(
        Unpickler=Placing, load=lambda file, **options: InertUnpickler(file, **options).load(), __name__="inert"
    )


def _storage_places(file: Path, opened: Any) -> dict[str, tuple[int, int]]:
    """The first byte of each storage in an archive of torch.save, and its length, by its key; empty for other files.

    Raises SourceError for storages that are compressed, or whose bytes are in the other order.
    """
    if not zipfile.is_zipfile(opened):
        return {}
    places = dict[str, tuple[int, int]]()
    with zipfile.ZipFile(opened) as archive:
        for info in archive.infolist():
            _, data, key = info.filename.partition("/data/")
            if info.filename.endswith("/byteorder") and archive.read(info) != sys.byteorder.encode():
                raise SourceError(f"{file} has its bytes in the other order; save its state dict as .safetensors")
            if not data:
                continue
            if info.compress_type != zipfile.ZIP_STORED:
                raise SourceError(
                    f"{file} was packed anew, compressed; save its state dict again, with torch.save or as .safetensors"
                )
            opened.seek(info.header_offset + _LENGTHS)
            lengths = opened.read(4)  # of the name and of what lies between it and the data
            start = info.header_offset + _LENGTHS + 4 + sum(struct.unpack("<HH", lengths))
            places[key] = start, info.file_size
    return places


class FileSlice(io.RawIOBase):
    """A part of an open file, as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, self._length)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, target: Any) -> int:
        count = max(0, min(len(target), self._length - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        target[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_archive(file: Path, opened: BinaryIO) -> Any:
    """The object in a file, with fake tensors.  Raises SourceError for a program."""
    with _refusing_damage(file):
        names = zipfile.ZipFile(opened).namelist()
    for ending, kind in _PROGRAMS.items():
        if any(name.endswith(ending) for name in names):
            raise SourceError(f"cannot read {file}: it holds a program of {kind}")
    if not any(name.endswith("data.pkl") for name in names):
        raise SourceError(f"{file} is a zip archive that torch.save did not write: unpack it, and name what was in it")
    return unpickled(file, opened)


def unpickled(file: Path, opened: Any) -> Any:
    """The object that torch.save wrote into a file, or into the part of it that is `opened`, with fake tensors."""
    with _refusing_damage(file):
        module = _pickle_module(_storage_places(file, opened))
        opened.seek(0)
        with FakeTensorMode():
            return torch.load(opened, map_location="cpu", pickle_module=module, weights_only=False)


@contextmanager
def _refusing_damage(file: Path) -> Iterator[None]:
    """Raise SourceError for anything that an unpickler and a reader of archives raise for damaged bytes."""
    try:
        yield
    except (SourceError, OSError):
        raise
    except Exception as e:
        raise SourceError(
            f"cannot read {file}: it is damaged ({in_one_line(e)}); save its state dict as .safetensors"
        ) from e
