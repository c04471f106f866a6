"""The tensors of each stage: the manifest's list, the model's, and the header and bytes of the weights file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import inf, prod
from pathlib import Path
from typing import Any
from zlib import crc32

from runtime.call.expressions import SizeExpression
from runtime.check.flow import made_and_read
from runtime.manifest.manifest import FILE, HeldTensor, Manifest, ModelWeight, ProgramEntry

_SPELLED = {"bool": "BOOL", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0"}


def check_holdings(program: ProgramEntry, weights: Sequence[ModelWeight]) -> Iterator[str]:
    """Faults of weights: stages hold what the model has and what their nodes read, and states are listed."""
    known, updated = {weight.tensor.name: weight for weight in weights}, {*program.updates}
    for i, stage in enumerate(program.stages):
        read = made_and_read(stage, program)[1] | updated
        for name, held in stage.holds.items():
            weight = known.get(held.weight)
            if weight is None or (held.dtype, held.shape) != (weight.tensor.dtype, weight.tensor.shape):
                yield f"stage {i}: it holds {name} as {held}, the model has {weight}"
            elif name not in weight.names and not name.rpartition(".")[2].startswith("constant_"):
                yield f"stage {i}: it holds {held.weight} as {name}, which in the model is {', '.join(weight.names)}"
            elif held.weight not in read:
                yield f"stage {i}: it holds {name}, which none of its nodes reads"
        states = [name for name, held in stage.holds.items() if held.weight in known and known[held.weight].state]
        if sorted(states) != sorted(stage.state):
            yield f"stage {i}: it lists the states {[*stage.state]}, and holds {states}"


def check_memory(manifest: Manifest) -> Iterator[str]:
    """A stage's programs have the same tensors under the same names; a state is in one stage; memory is as planned."""
    states = {weight.tensor.name for weight in manifest.weights if weight.state}
    planned = manifest.plan.get("stages", ())
    holders = Counter[str]()
    for i, stage in enumerate(manifest.stages):
        rows = [item for program in manifest.programs for item in program.stages[i].holds.items()]
        held = {(name, h.weight, h.dtype, h.shape, h.crc32, h.zeros): _nbytes(h) for name, h in rows}
        for what in ({key[0] for key in held}, {key[1] for key in held}):
            if len(what) < len(held):
                yield f"stage {i}: its programs hold {len(held)} tensors, of which {len(what)} differ"
        plan = planned[i] if len(planned) == len(manifest.stages) else {}
        arriving = max(_arriving(i, program, manifest.plan.get("calls", ())) for program in manifest.programs)
        if not sum(held.values()) == stage.nbytes == plan.get("weight_bytes", -1) <= (plan.get("memory_bytes") or inf):
            yield f"stage {i}: its tensors need other memory than was planned, or more than {stage.device} has"
        if arriving > plan.get("activation_bytes", -1):
            yield f"stage {i}: it receives {arriving} bytes, more than was planned for activations"
        holders.update({key[1] for key in held})
    yield from (f"{FILE}: {name} is a state of several stages" for name in states if holders[name] > 1)


def _arriving(i: int, program: ProgramEntry, calls: Sequence[Any]) -> int:
    """Bytes that stage `i` has received when it starts: at the example's sizes, or those of its largest planned call.

    The lesser of the two counts, as a plan may be for larger calls than the example, or for smaller ones.
    """
    example = {name: symbol.example for name, symbol in program.symbols.items()}
    planned = [{name: call.get("sizes", {}).get(name, size) for name, size in example.items()} for call in calls]
    tensors = [receive.tensor for receive in program.stages[i].receives]

    def nbytes(sizes: Mapping[str, int]) -> int:
        shapes = [[SizeExpression.parse(str(n), sizes)(sizes) for n in t.shape] for t in tensors]
        return sum(prod(shape) * _itemsize(t.dtype) for shape, t in zip(shapes, tensors, strict=True))

    return min(nbytes(example), max(map(nbytes, planned), default=nbytes(example)))


def check_tensors(path: Path, holds: Mapping[str, HeldTensor], *, contents: bool) -> Iterator[str]:
    """The weights file of a stage has the tensors that its programs hold, and their bytes."""
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
    stored = {name for name, held in holds.items() if not held.zeros}
    for name in sorted({*table, *links["pieces"]} ^ stored):
        yield f"{path.name}: {name} is {'missing' if name in stored else 'not in the manifest'}"
    for name, held in holds.items():
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
