"""Faults of weights files, and of any file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.of_table import stage_with_weights


def _weights(folder: Path, table: Any, random: Random) -> tuple[Path, dict[str, Any], bytes]:
    """A weights file: its path, its header and its bytes."""
    path = folder / stage_with_weights(table, random)["weights"]
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    return path, json.loads(whole[8:size]), whole[size:]


def _put_weights(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _truncate(folder: Path, table: Any, random: Random) -> None:
    path, _, data = _weights(folder, table, random)
    whole = path.read_bytes()
    path.write_bytes(whole[: -random.choice([1, 4, len(data), len(whole) - 4])])


def _flip(folder: Path, table: Any, random: Random) -> None:
    path, header, data = _weights(folder, table, random)
    at = random.randrange(len(data))
    _put_weights(path, header, data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :])


def _trade_tensors(folder: Path, table: Any, random: Random) -> None:
    path, header, data = _weights(folder, table, random)
    names = [name for name in header if name != "__metadata__"]
    a = random.choice(names)
    b = random.choice([name for name in names if name != a] or [a])
    header[a], header[b] = header[b], header[a]
    _put_weights(path, header | ({"more": header[a]} if a == b else {}), data)


def _retype_tensor(folder: Path, table: Any, random: Random) -> None:
    path, header, data = _weights(folder, table, random)
    row = header[random.choice([name for name in header if name != "__metadata__"])]
    key, value = random.choice([("dtype", "I32"), ("shape", [*row["shape"], 1]), ("data_offsets", [0, 4])])
    row[key] = value
    _put_weights(path, header, data)


def _rename_tensor(folder: Path, table: Any, random: Random) -> None:
    path, header, data = _weights(folder, table, random)
    name = random.choice([name for name in header if name != "__metadata__"])
    header[f"{name}_2"] = header.pop(name)
    _put_weights(path, header, data)


WEIGHTS_FAULTS: dict[str, Callable[[Path, Any, Random], object]] = {
    "weights are cut short": _truncate,
    "a bit of a weight is flipped": _flip,
    "tensors are swapped": _trade_tensors,
    "a tensor of another type": _retype_tensor,
    "a tensor is renamed": _rename_tensor,
}


def _remove(folder: Path, table: Any, random: Random) -> None:
    (folder / random.choice([*table["files"]])).unlink()


def _empty(folder: Path, table: Any, random: Random) -> None:
    (folder / random.choice([*table["files"]])).write_bytes(b"")


def _append(folder: Path, table: Any, random: Random) -> None:
    with (folder / random.choice([*table["files"]])).open("ab") as file:
        file.write(b" ")


FILE_FAULTS: dict[str, Callable[[Path, Any, Random], object]] = {
    "a file is missing": _remove,
    "a file is empty": _empty,
    "a file is longer": _append,
}
