"""Files of torch.save before torch 1.6: pickles one after the other, and the bytes of storages behind them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import MAGIC_NUMBER, StorageType  # type: ignore[attr-defined]

from ir.checkpoint.formats.inert import InertUnpickler
from ir.errors import SourceError, in_one_line

_LEGACY = re.compile(
    rb"\x80[\x02-\x05](\x95\x0d\0{7})?\x8a\x0a" + re.escape(MAGIC_NUMBER.to_bytes(10, "little")), re.DOTALL
)
"""The first bytes of such a file: the pickle of a number, by any protocol, in a frame from the fourth on."""

_SIZE = 8  # bytes before each storage, which say how many elements it has


class _LegacyUnpickler(InertUnpickler):
    """An unpickler of tensors whose storages are without memory; it keeps them by the keys that the file has."""

    def __init__(self, file: BinaryIO, storages: dict[str, tuple[torch.UntypedStorage, int]]) -> None:
        super().__init__(file, encoding="utf-8")  # of strings of Python 2
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage") and name != "UntypedStorage":
            return StorageType(name)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """A class of modules, or a typed storage; views of storages are of files before torch 0.4."""
        kind, what, *rest = pid
        if kind != "storage":
            return what
        key, _, count, view = rest
        if view is not None:
            raise ValueError("a view of a storage")
        dtype = what.dtype if isinstance(what, StorageType) else torch.uint8
        made = torch.UntypedStorage(count * dtype.itemsize, device="meta")
        storage, _ = self._storages.setdefault(str(key), (made, dtype.itemsize))
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def is_legacy(opened: BinaryIO) -> bool:
    """Whether an open file is such a one."""
    opened.seek(0)
    return _LEGACY.match(opened.read(32)) is not None


def read_legacy(file: Path, opened: BinaryIO) -> Any:
    """The object in a file, with fake tensors whose storages know their places.  Raises SourceError where it is cut."""
    storages: dict[str, tuple[torch.UntypedStorage, int]] = {}
    opened.seek(0)
    try:
        with FakeTensorMode():
            _, _, system, held, keys = (_LegacyUnpickler(opened, storages).load() for _ in range(5))
        if not system["little_endian"]:
            raise ValueError("it was written on a machine of another byte order")
        end, size = opened.tell(), file.stat().st_size
        for key in keys:
            storage, width = storages[str(key)]
            end += _SIZE
            cast(Any, storage)._checkpoint_offset = end
            end += storage.nbytes()
            if end > size:
                raise ValueError(f"a storage of {storage.nbytes() // width} elements ends at {end}, the file at {size}")
    except OSError:
        raise
    except Exception as e:  # an unpickler raises anything for bytes that are no pickle
        raise SourceError(
            f"cannot read {file}: it is damaged, or was not fetched whole; fetch it again ({in_one_line(e)})"
        ) from e
    return held
