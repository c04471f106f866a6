"""A compiled graph that is kept in files, and runs in place of a stage's module for batches of one shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.manifest.digests import file_hash
from runtime.stage.compiling.generated_code import CompiledGraph, KeptKernels, run_code

_ALIGNED = 16  # bytes that torch's compiler takes most tensors to begin at a multiple of

Operand = tuple[str, str | int]  # "weight" and its name, "tensor" or "result" and its place, "size" and its value


@dataclass(frozen=True)
class GraphRecord:
    """A description of a graph, as it is written.  Names of files are paths from the folder of the cache."""

    code: str  # the file
    inputs: Sequence[Operand]
    sent: Sequence[Operand]  # what the stage sends
    aligned: Sequence[int]  # places of the inputs that must begin at a multiple of _ALIGNED
    operators: Sequence[str]  # of torch, that the code has from the compiler under the same names
    libraries: Mapping[str, str]  # files of kernels, by the digests of their sources
    hashes: Mapping[str, str]  # of all these files

    def text(self) -> str:
        """The text of its file: a digest, and the JSON that it is of."""
        text = json.dumps(asdict(self))
        return f"{_digest(text)}\n{text}"

    @classmethod
    def read(cls, file: Path, folder: Path) -> GraphRecord:
        """Raises ValueError or OSError where its file or another is damaged.  Of the others such a one is removed."""
        digest, _, text = file.read_text().partition("\n")
        if _digest(text) != digest:
            raise ValueError(f"{file.name} is not as it was written")
        record = cls(**json.loads(text))
        for name, digest in record.hashes.items():
            if file_hash(folder / name) != digest:
                with suppress(OSError):
                    (folder / name).unlink()  # or torch's compiler would take it for the one that it made
                raise ValueError(f"{name} is not as it was written")
        return record

    def load(self, folder: Path, weights: Mapping[str, Tensor]) -> KeptGraph:
        """The graph, ready to run.  Raises what its code does, KeyError, AttributeError or ImportError."""
        kernels = KeptKernels({digest: folder / name for digest, name in self.libraries.items()})
        graph = run_code((folder / self.code).read_text(), kernels, {n: getattr(torch, n) for n in self.operators})
        return KeptGraph(graph, self, weights)


@dataclass(frozen=True)
class KeptGraph:
    """A graph that is ready to run."""

    graph: CompiledGraph
    record: GraphRecord
    weights: Mapping[str, Tensor]

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors that the stage sends for those that it receives.  Sizes are those of the shape."""
        inputs = [*self._held]
        for place, i, is_aligned in self._given:
            inputs[place] = _aligned(tensors[i]) if is_aligned else tensors[i]
        values = {"result": self.graph(inputs), "tensor": tensors, "weight": self.weights}
        return tuple(values[kind][value] for kind, value in self.record.sent)

    @cached_property
    def _held(self) -> list[Any]:
        """The inputs that are the same in all calls, in their places.  Raises KeyError."""
        held = [self.weights[str(value)] if kind == "weight" else value for kind, value in self.record.inputs]
        return [_aligned(x) if isinstance(x, Tensor) and i in self.record.aligned else x for i, x in enumerate(held)]

    @cached_property
    def _given(self) -> list[tuple[int, int, bool]]:
        """The places of the other inputs, those of the tensors that they are, and whether they must be aligned."""
        inputs = enumerate(self.record.inputs)
        return [(place, int(i), place in self.record.aligned) for place, (kind, i) in inputs if kind == "tensor"]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor, or a copy of it that begins where kernels need it to, as torch makes one, too."""
    if tensor.data_ptr() % _ALIGNED == 0:
        return tensor
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = tensor.as_strided((reach if tensor.numel() else 0,), (1,)).clone()
    return memory.as_strided(tensor.shape, tensor.stride())
