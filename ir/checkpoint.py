"""A checkpoint on disk: its tensors by name, each read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ir.errors import SourceError
from ir.graph import Graph, Param, at
from ir.interpret import lookup


def check_weights(graph: Graph, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError where a parameter of the graph is not in the weights, or has another shape there."""
    stored = [v for v in (*graph.params, *graph.states) if isinstance(v, Param) or v.data is None]
    missing = [v.fqns[0] for v in stored if not any(fqn in weights for fqn in v.fqns)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(f"the checkpoint {weights} holds no {', '.join(missing[:5])}{more}")
    if not isinstance(weights, Checkpoint) and any(lookup(weights, v.fqns).is_meta for v in stored):
        raise SourceError("the model's weights are on the meta device, without values; name a `checkpoint`")
    if isinstance(weights, Checkpoint):
        for value in stored:
            shape = weights.shape(next(fqn for fqn in value.fqns if fqn in weights))
            if shape != tuple(at(d, {}) for d in value.type.shape):
                raise SourceError(f"{value.fqns[0]} is {list(shape)} in {weights} and {value.type} in the model")


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of safetensors files, each read when it is asked for."""

    def __init__(self, path: Path, files: Mapping[str, Any]) -> None:
        self._path = path
        self._file_of = files

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Open a .safetensors file, or a folder with model.safetensors or a sharded index.

        Raises SourceError with the file that is missing or damaged.
        """
        if path.is_file():
            files = [path]
        elif (index := path / "model.safetensors.index.json").is_file():
            files = [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        elif (path / "model.safetensors").is_file():
            files = [path / "model.safetensors"]
        else:
            raise SourceError(f"there is no checkpoint at {path}; give a .safetensors file, or a folder that holds one")
        opened: dict[str, Any] = {}
        for file in files:
            try:
                handle = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as e:
                raise SourceError(f"cannot read {file}: {e}") from e
            opened |= dict.fromkeys(handle.keys(), handle)
        return cls(path, opened)

    def __getitem__(self, fqn: str) -> torch.Tensor:
        return self._file_of[fqn].get_tensor(fqn)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __str__(self) -> str:
        return str(self._path)

    def shape(self, fqn: str) -> tuple[int, ...]:
        return tuple(self._file_of[fqn].get_slice(fqn).get_shape())
