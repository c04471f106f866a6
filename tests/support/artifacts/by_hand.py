"""Small artifacts made by hand, so that the runtime is tested without the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event
from typing import Any
from weakref import ReferenceType

import torch
from safetensors.torch import save_file

from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import (
    CallSignature,
    Manifest,
    Microbatching,
    Parameter,
    ProgramEntry,
    ProgramStage,
    Receive,
    Send,
    StageEntry,
    Symbol,
    Tensor,
)
from tests.support.patience import PATIENCE

TEMPLATE = '''\
"""Stage {index}"""

import math
import time

import torch
from safetensors.torch import load_file
from torch import nn


class Stage{index}(nn.Module):
    def __init__(self):
        super().__init__()
{buffers}
    def forward(self, {parameters}):
{body}

    @classmethod
    def load(cls, path, device="cpu"):
        module = cls().to(device)
        module.load_state_dict(load_file(path, device=str(device)))
        return module
'''


class Signals:
    """What stage files and tests tell each other, in place of sleeping."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.meeting = Barrier(2, timeout=PATIENCE)
        self.started, self.go_on = Event(), Event()
        self.seen: list[ReferenceType[torch.Tensor]] = []


signals = Signals()


def tensor(name: str, *shape: int | str, dtype: str = "float32") -> Tensor:
    return Tensor(name, dtype, shape or ("batch", 4))


@dataclass(frozen=True)
class Part:
    """A stage in short.  `body` is the text of forward, which may read `self.<weight>`."""

    body: str
    receives: Mapping[str, int | None]  # name -> source
    sends: Mapping[str, tuple[Sequence[int], Sequence[int]]]  # name -> stages, outputs
    sizes: tuple[str, ...] = ()
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    device: str = "cpu"


def write(
    folder: Path,
    parts: Sequence[Part],
    *,
    inputs: Sequence[Tensor] = (tensor("x"),),
    outputs: Sequence[Tensor] = (tensor("y"),),
    arguments: Any = None,
    returns: Any = None,
    parameters: Sequence[Parameter] = (),
    symbols: Mapping[str, Symbol] | None = None,
    guards: Sequence[str] = (),
    microbatching: Microbatching | None = None,
) -> Path:
    """Write an artifact.  Without trees, each input is a parameter and the first output is returned."""
    folder.mkdir(exist_ok=True)
    known = {t.name: t for t in (*inputs, *outputs)}
    stages = tuple(_write_stage(folder, i, part, known) for i, part in enumerate(parts))
    signature = CallSignature(
        tuple(parameters) or tuple(Parameter(t.name, "POSITIONAL_OR_KEYWORD") for t in inputs),
        arguments or {"dict": [[t.name, {"slot": i}] for i, t in enumerate(inputs)]},
        returns or {"slot": 0},
    )
    files = {path.name: file_hash(path) for path in folder.iterdir() if path.name.startswith("stage_")}
    default = {"batch": Symbol(1, 64, 2)}
    program = ProgramEntry(
        "main",
        tuple(inputs),
        tuple(outputs),
        dict(default if symbols is None else symbols),
        tuple(guards),
        signature,
        stages,
        microbatching=microbatching or Microbatching("batch", (0,) * len(inputs), (0,) * len(outputs), ""),
    )
    entries = tuple(StageEntry(f"stage_{i}.safetensors", part.device, _nbytes(part)) for i, part in enumerate(parts))
    Manifest("model", (program,), entries, files, {}).write(folder)
    return folder


def batches(count: int) -> list[torch.Tensor]:
    """Tensors [1, 4], filled with 0, 1, …"""
    return [torch.full((1 + i % 3, 4), float(i)) for i in range(count)]


def chain(folder: Path, **options: Any) -> Path:
    """Two stages: y = (x + weight) * 2, with weight = 1."""
    first = Part("return (x + self.weight,)", {"x": None}, {"h": ((1,), ())}, weights={"weight": torch.ones(4)})
    second = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    return write(folder, [first, second], **options)


def _nbytes(part: Part) -> int:
    return sum(tensor.nbytes for tensor in part.weights.values())


def _write_stage(folder: Path, index: int, part: Part, known: Mapping[str, Tensor]) -> ProgramStage:
    lines = [f'self.register_buffer("{name}", torch.empty({list(w.shape)}))' for name, w in part.weights.items()]
    source = TEMPLATE.format(
        index=index,
        buffers="\n".join(f"        {line}" for line in lines) + "\n" * bool(lines),
        parameters=", ".join([*part.receives, "*" * bool(part.sizes), *part.sizes]).replace(", , ", ", ").strip(", "),
        body="\n".join(f"        {line}" for line in part.body.splitlines()),
    )
    (folder / f"stage_{index}.py").write_text(source)
    save_file(dict(part.weights), folder / f"stage_{index}.safetensors")
    return ProgramStage(
        f"stage_{index}.py",
        f"Stage{index}",
        tuple(Receive(known.get(name, tensor(name)), source) for name, source in part.receives.items()),
        part.sizes,
        tuple(Send(known.get(n, tensor(n)), tuple(to), tuple(out)) for n, (to, out) in part.sends.items()),
        part.state,
    )
