"""The index of an artifact folder, `manifest.json`: the border between compiler and runtime."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

SCHEMA = 2
FILE = "manifest.json"


class ManifestError(Exception):
    """The folder is not an artifact, or not one that this version can run."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that crosses the border of a stage."""

    name: str
    dtype: str  # as torch spells it: "float32"
    shape: tuple[int | str, ...]  # numbers, or Python expressions over the symbols


@dataclass(frozen=True)
class Symbol:
    """A size that may change from batch to batch."""

    min: int
    max: int | None  # None: no limit
    example: int  # its value when the model was captured


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model's `forward`."""

    name: str
    kind: str  # a name in inspect.Parameter: "POSITIONAL_OR_KEYWORD"
    optional: bool = True  # whether callers may leave it out: its captured value is the model's default


@dataclass(frozen=True)
class CallSignature:
    """The parameters and results of a call.  `arguments` and `returns` are trees: see runtime/call/tree.py."""

    parameters: tuple[Parameter, ...]
    arguments: dict[str, Any]
    returns: dict[str, Any]


@dataclass(frozen=True)
class Receive:
    """An argument of a stage's `forward`: an input of the model, or a tensor from another stage."""

    tensor: Tensor
    source: int | None  # the stage that sends it; None: an input of the model


@dataclass(frozen=True)
class Send:
    """One of the tensors that a stage's `forward` returns."""

    tensor: Tensor
    stages: tuple[int, ...]  # that receive it
    outputs: tuple[int, ...]  # its indices among the outputs of the model


@dataclass(frozen=True)
class ModelNode:
    """A call of an operator of the model, whatever stage runs it."""

    op: str  # as dumps print it: "aten.add.Tensor"
    reads: tuple[str, ...]  # values, in the order of the arguments
    makes: tuple[Tensor, ...]
    repeats: bool  # whether several stages may run it: it is cheap, deterministic and without side effects
    digest: str  # of the whole call, numbers among its arguments included


@dataclass(frozen=True)
class ModelWeight:
    """A parameter, a buffer, a constant or a state of the model."""

    tensor: Tensor  # under the name by which nodes read it
    names: tuple[str, ...]  # in the model; several for a tied weight
    state: bool  # whether a call changes it
    becomes: str = ""  # the value that it holds after a call; empty: it keeps its own


@dataclass(frozen=True)
class NodeRun:
    """A node that a stage runs."""

    node: str  # the first value that it makes
    line: int  # of the stage's file
    spelled: str  # how the file writes the operator: "add", "linear", "[]"
    digest: str  # of the call, as the stage has it


@dataclass(frozen=True)
class HeldTensor:
    """A tensor in the weights file of a stage, or in the checkpoint that the file refers to."""

    weight: str  # the name of a ModelWeight's tensor
    dtype: str
    shape: tuple[int, ...]
    crc32: str = ""  # of its bytes; empty if the file has no copy of them
    becomes: str = ""  # the value that the stage puts into it, if it is a state


@dataclass(frozen=True)
class StageEntry:
    """One stage: its module, its weights, and the tensors that it receives and sends."""

    module: str  # file name: "stage_0.py"
    cls: str  # class name: "Stage0"
    weights: str  # file name: "stage_0.safetensors"
    device: str  # that it was planned for
    receives: tuple[Receive, ...]  # in the order of forward's parameters
    sizes: tuple[str, ...]  # symbols that forward takes as keyword arguments
    sends: tuple[Send, ...]  # in the order of forward's results
    state: tuple[str, ...]  # names of buffers that a call changes
    nbytes: int  # bytes of its weights
    runs: tuple[NodeRun, ...] = ()  # in order
    holds: dict[str, HeldTensor] = field(default_factory=dict)  # by name in the stage's module
    terms: str = ""  # the `terms` of the program that it was cut from
    matched: bool = True  # whether the lines of the module could be matched with `runs` when it was written


@dataclass(frozen=True)
class CheckpointFile:
    """A file of the checkpoint that stages read weights from, without a copy."""

    path: str  # relative to the artifact folder
    nbytes: int
    sample: str  # the file's sample_hash
    stages: tuple[int, ...]  # that read the file


@dataclass(frozen=True)
class Operator:
    """An operator from outside torch that stages run."""

    name: str  # "torchvision::nms"
    module: str  # whose import registers it; "" if that is not known
    library: str  # the distribution of the module, as pip calls it; "" for a file of the user's
    version: str  # of the library, where the stages were cut
    stages: tuple[int, ...]  # that run it


@dataclass(frozen=True)
class Microbatching:
    """The dimension of each input and output along which a batch may be split, as the compiler proved."""

    symbol: str | None = None  # the size that is split; None: a batch cannot be split
    inputs: tuple[int | None, ...] = ()  # None: every microbatch takes the whole tensor
    outputs: tuple[int | None, ...] = ()  # None: every microbatch returns the same tensor
    reason: str = "its artifact does not say along which size; compile the model again"  # where there is no symbol


@dataclass(frozen=True)
class Manifest:
    """Everything that the runtime needs besides the stage files."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: dict[str, Symbol]
    guards: tuple[str, ...]  # conditions on the sizes, as Python expressions: "height % 8 == 0"
    signature: CallSignature
    stages: tuple[StageEntry, ...]
    files: dict[str, str]  # file name -> sha256 of its content
    plan: dict[str, Any]  # the compiler's predictions, for people and reports
    microbatching: Microbatching = Microbatching()
    links: tuple[CheckpointFile, ...] = ()  # empty if the stages have copies of their weights
    operators: tuple[Operator, ...] = ()  # from outside torch
    nodes: tuple[ModelNode, ...] = ()  # of the uncut model, each once, in order
    weights: tuple[ModelWeight, ...] = ()  # of the uncut model
    returns: tuple[str, ...] = ()  # the values that are the outputs
    placement: tuple[str, ...] = ()  # the device of each stage
    seal: str = ""  # sha256 of all the rest, as the compiler wrote it
    settings: dict[str, str] = dataclasses.field(default_factory=dict)  # of torch, at the compilation
    layouts: tuple[tuple[int, ...], ...] = ()  # of the inputs: their dimensions, the outermost in memory first
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Write `folder`/manifest.json.  Raises OSError."""
        write_table(folder, dataclasses.asdict(self))

    def sealed(self) -> Manifest:
        """The same with its seal, which any later change breaks."""
        return dataclasses.replace(self, seal=seal_of(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `folder`/manifest.json.  Raises ManifestError with the file and the fault."""
        path = folder / FILE
        try:
            table = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ManifestError(
                f"{_no_artifact(folder)}; `python -m passes.compile SOURCE -o OUT` writes one"
            ) from None
        except (OSError, ValueError) as e:
            raise ManifestError(f"cannot read {path}: {e}") from e
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            found = table.get("schema") if isinstance(table, dict) else None
            raise ManifestError(f"{path} has schema {found}, this runtime reads {SCHEMA}; compile the model again")
        try:
            return _manifest(table)
        except (AttributeError, KeyError, TypeError) as e:
            raise ManifestError(f"{path} is damaged ({type(e).__name__}: {e}); compile the model again") from e


def write_table(folder: Path, table: dict[str, Any]) -> None:
    """Write the JSON of a manifest, what is short on one line.  Raises OSError."""
    (folder / FILE).write_text(_spread(table, "") + "\n")


def _spread(value: Any, indent: str) -> str:
    """JSON with a line for each item of what is longer than a line."""
    short = json.dumps(value)
    if not value or not isinstance(value, (dict, list, tuple)) or (indent and len(indent) + len(short) <= 160):
        return short
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(str(key))}: {_spread(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _spread(item, inner) for item in value) + f"\n{indent}]"


def seal_of(table: dict[str, Any]) -> str:
    """The seal of a manifest, as JSON or as dataclasses.asdict has it."""
    return digest_of({key: value for key, value in table.items() if key != "seal"})


def terms_of(
    symbols: dict[str, Symbol], guards: Sequence[str], signature: CallSignature, microbatching: Microbatching
) -> str:
    """A digest of what a program asks of its callers and what it returns to them."""
    sizes = {name: dataclasses.asdict(symbol) for name, symbol in symbols.items()}
    return digest_of([sizes, list(guards), dataclasses.asdict(signature), dataclasses.asdict(microbatching)])


def digest_of(value: Any) -> str:
    """sha256 of a value's JSON, in hexadecimal."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _no_artifact(folder: Path) -> str:
    fault = f"has no {FILE}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
    return f"{folder} is not an artifact folder: it {fault}; `python -m passes.compile SOURCE -o OUT` writes one"


def file_hash(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sample_hash(path: Path, blocks: int = 64, size: int = 1 << 16) -> str:
    """sha256 of a file's length and of `blocks` equally spaced blocks of `size` bytes, in hexadecimal.

    It detects another checkpoint, or another version of one, without reading 100 GB at each load.  It does not
    detect a few flipped bits.
    """
    length = path.stat().st_size
    digest = sha256(str(length).encode())
    with path.open("rb") as f:
        for i in range(blocks):
            f.seek(max(0, length - size) * i // (blocks - 1))
            digest.update(f.read(size))
    return digest.hexdigest()


def _manifest(t: dict[str, Any]) -> Manifest:
    signature = t["signature"]
    return Manifest(
        **t
        | {
            "inputs": tuple(map(_tensor, t["inputs"])),
            "outputs": tuple(map(_tensor, t["outputs"])),
            "symbols": {name: Symbol(**s) for name, s in t["symbols"].items()},
            "guards": tuple(t["guards"]),
            "signature": CallSignature(
                **signature | {"parameters": tuple(Parameter(**p) for p in signature["parameters"])}
            ),
            "stages": tuple(map(_stage, t["stages"])),
            "layouts": tuple(map(tuple, t.get("layouts", ()))),
            "microbatching": _microbatching(t["microbatching"]) if "microbatching" in t else Microbatching(),
            "operators": tuple(Operator(**o | {"stages": tuple(o["stages"])}) for o in t.get("operators", ())),
            "links": tuple(CheckpointFile(**link | {"stages": tuple(link["stages"])}) for link in t["links"]),
            "nodes": tuple(map(_node, t.get("nodes", ()))),
            "weights": tuple(map(_weight, t.get("weights", ()))),
            "returns": tuple(t.get("returns", ())),
            "placement": tuple(t.get("placement", ())),
        }
    )


def _microbatching(t: dict[str, Any]) -> Microbatching:
    return Microbatching(t["symbol"], tuple(t["inputs"]), tuple(t["outputs"]), t["reason"])


def _tensor(t: dict[str, Any]) -> Tensor:
    return Tensor(t["name"], t["dtype"], tuple(t["shape"]))


def _stage(t: dict[str, Any]) -> StageEntry:
    receives = tuple(Receive(_tensor(r["tensor"]), r["source"]) for r in t["receives"])
    sends = tuple(Send(_tensor(s["tensor"]), tuple(s["stages"]), tuple(s["outputs"])) for s in t["sends"])
    rest = {"receives": receives, "sends": sends, "sizes": tuple(t["sizes"]), "state": tuple(t["state"])}
    rest["runs"] = tuple(NodeRun(**run) for run in t.get("runs", ()))
    rest["holds"] = {name: HeldTensor(**h | {"shape": tuple(h["shape"])}) for name, h in t.get("holds", {}).items()}
    return StageEntry(**t | rest)


def _node(t: dict[str, Any]) -> ModelNode:
    return ModelNode(**t | {"reads": tuple(t["reads"]), "makes": tuple(map(_tensor, t["makes"]))})


def _weight(t: dict[str, Any]) -> ModelWeight:
    return ModelWeight(**t | {"tensor": _tensor(t["tensor"]), "names": tuple(t["names"])})
