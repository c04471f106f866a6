"""The tensors of each stage: the manifest's list, the model's, and the header and bytes of the weights file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

from runtime.check.flow import made_and_read
from runtime.manifest import HeldTensor, Manifest, StageEntry

_SPELLED = {"bool": "BOOL", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0"}


def check_holdings(manifest: Manifest) -> Iterator[str]:
    """What stages hold is what the model has, what their nodes read, and no more memory than was planned."""
    weights = {weight.tensor.name: weight for weight in manifest.weights}
    planned = manifest.plan.get("stages", ())
    for i, stage in enumerate(manifest.stages):
        read = made_and_read(stage, manifest)[1] | {weight.tensor.name for weight in manifest.weights if weight.becomes}
        for name, held in stage.holds.items():
            weight = weights.get(held.weight)
            if weight is None or (held.dtype, held.shape) != (weight.tensor.dtype, weight.tensor.shape):
                yield f"stage {i}: it holds {name} as {held}, the model has {weight}"
            elif name not in weight.names and not name.rpartition(".")[2].startswith("constant_"):
                yield f"stage {i}: it holds {held.weight} as {name}, which in the model is {', '.join(weight.names)}"
            elif held.weight not in read:
                yield f"stage {i}: it holds {name}, which none of its nodes reads"
        plan = planned[i] if len(planned) == len(manifest.stages) else {}
        room = plan.get("memory_bytes") or stage.nbytes
        if not sum(map(_nbytes, stage.holds.values())) == stage.nbytes == plan.get("weight_bytes", -1) <= room:
            yield f"stage {i}: its tensors need other memory than was planned, or more than {stage.device} has"


def check_tensors(folder: Path, stage: StageEntry, *, contents: bool) -> Iterator[str]:
    """The weights file of a stage has the tensors that the manifest lists, and their bytes."""
    path = folder / stage.weights
    if not path.is_file():
        return  # reported with the files, or the artifact is without weights
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            start, links = file.tell(), json.loads(table.pop("__metadata__", {}).get("links", '{"pieces": {}}'))
        rows = {name: (row["dtype"], (*row["shape"],), *row["data_offsets"]) for name, row in table.items()}
    except (AttributeError, KeyError, TypeError, OSError, ValueError, MemoryError, OverflowError) as e:
        yield f"{path.name}: its header cannot be read ({type(e).__name__})"
        return
    for name in sorted({*table, *links["pieces"]} ^ {*stage.holds}):
        yield f"{path.name}: {name} is {'missing' if name in stage.holds else 'not in the manifest'}"
    for name, held in stage.holds.items():
        if name in table and (fault := _copy_fault(path, start, rows[name], held, contents)):
            yield f"{path.name}: {name} {fault}"
        if name in links["pieces"] and sum(prod(row[3]) for row in links["pieces"][name]) != prod(held.shape):
            yield f"{path.name}: the pieces of {name} in the checkpoint do not fill {[*held.shape]}"


def _copy_fault(path: Path, start: int, row: Any, held: HeldTensor, contents: bool) -> str:
    dtype, shape, first, last = row
    spelled = held.dtype.upper().replace("UINT", "U").replace("INT", "I").replace("FLOAT", "F").replace("COMPLEX", "C")
    if (dtype, shape) != (_SPELLED.get(held.dtype, spelled), held.shape):
        return f"is {dtype} {[*shape]}, not {held.dtype} {[*held.shape]}"
    if last - first != _nbytes(held) or start + last > path.stat().st_size:
        return "is not whole"
    with path.open("rb") as file:
        file.seek(start + first)
        total = 0
        while contents and (block := file.read(min(start + last - file.tell(), 1 << 20))):
            total = crc32(block, total)
    return "has other bytes than the compiler wrote" if contents and f"{total:08x}" != held.crc32 else ""


def _nbytes(held: HeldTensor) -> int:
    return prod(held.shape) * _itemsize(held.dtype)


def _itemsize(dtype: str) -> int:
    """Bytes of an element: 1 for "bool" and "float8_e5m2", 8 for "complex64"."""
    return int("".join(c for c in dtype.partition("_")[0] if c.isdigit()) or 8) // 8
