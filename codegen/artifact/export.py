"""The weights of an artifact as one checkpoint again, a tensor at a time."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from codegen.artifact.folder import check_replaceable, new_folder
from codegen.artifact.manifest import read_manifest
from codegen.artifact.weights import StageTensor, write_copies
from ir.checkpoint.files import OF_STAGES, read_stage_weights
from ir.errors import SourceError
from runtime.manifest.manifest import Manifest


def write_checkpoint(artifact: Path, form: str, out: Path, *, force: bool = False) -> int:
    """Write an artifact's weights to the folder `out`, as `safetensors` or `dcp`; returns the number of tensors.

    Each tensor is written once, under its name in the model, from the first stage that holds it: a file a stage.  With
    `force`, a folder in the way is moved aside.  Raises SourceError for a folder that is no artifact or has no weights,
    OutputError where `out` cannot be written.
    """
    check_replaceable(out, force=force, inputs=[artifact])
    shares = [share for share in weights_of_stages(artifact) if share]
    write = _write_safetensors if form == "safetensors" else _write_distributed
    with new_folder(out, force=force, inputs=[artifact]) as folder:
        write(folder, shares)
    return sum(map(len, shares))


def weights_in_codes(artifact: Path) -> int:
    """The number of quantized weights that an artifact's stages hold as they are stored, under names of their own.

    Codes of 8 bits with scales alone, as `NAME` and `NAME_scale`, are named as libraries have them.
    """
    return sum(len(_in_codes(share)) for share in weights_of_stages(artifact))


def _in_codes(share: Mapping[str, StageTensor]) -> list[str]:
    codes = [name for name in share if f"{name}_scale" in share or f"{name}_absmax" in share]
    plain = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
    return [
        name
        for name in codes
        if share[name].dtype not in plain or any(f"{name}_{part}" in share for part in ("zeros", "global_scale"))
    ]


def added_adapters(artifact: Path) -> tuple[str, ...]:
    """The names of the adapters that an artifact got once it was written: their matrices are in none of its stages."""
    return Manifest.read(artifact).added_adapters


def weights_of_stages(artifact: Path) -> Iterator[dict[str, StageTensor]]:
    """The tensors of each stage that no stage before it holds, by name, in the dtypes of the stages.

    Raises SourceError where the folder is no artifact, or one without weights.
    """
    manifest = read_manifest(artifact)
    shares: list[dict[str, StageTensor]] = [{} for _ in manifest.stages]
    for found in stored_weights(artifact, manifest).values():
        shares[found.stage][found.name] = found.tensor
    yield from shares


@dataclass(frozen=True)
class StoredWeight:
    """A weight in the first stage that holds it."""

    stage: int
    name: str  # in the stage
    tensor: StageTensor


def stored_weights(artifact: Path, manifest: Manifest) -> dict[str, StoredWeight]:
    """The tensors that stages hold, each once, by their names in the manifest's `weights`.

    Raises SourceError where the artifact has no weights, or not all.
    """
    found: dict[str, StoredWeight] = {}
    for i, stage in enumerate(manifest.stages):
        file = artifact / stage.weights
        if not file.is_file():
            none = "it is missing" if stage.weights in manifest.files else "it was made with --weights none"
            raise SourceError(f"{artifact} has no {stage.weights}: {none}")
        stored = read_stage_weights(file)
        for program in manifest.programs:
            for name, held in program.stages[i].holds.items():
                if held.zeros:
                    continue
                if name not in stored:
                    raise SourceError(f"{file} lacks {name}: the artifact is damaged; compile the model again")
                if held.weight not in found:
                    tensor = StageTensor(stored[name], getattr(torch, held.dtype))
                    found[held.weight] = StoredWeight(i, name, tensor)
    return found


def _write_safetensors(folder: Path, shares: list[dict[str, StageTensor]]) -> None:
    """A file a stage, and the index that transformers reads; one file alone needs none."""
    names = [f"model-{i:05}-of-{len(shares):05}.safetensors" for i in range(1, len(shares) + 1)]
    if len(shares) == 1:
        names = ["model.safetensors"]
    form = OF_STAGES if any(map(_in_codes, shares)) else ""
    for name, share in zip(names, shares, strict=True):
        write_copies(folder / name, share, form=form)
    if len(shares) > 1:
        place = {tensor: name for name, share in zip(names, shares, strict=True) for tensor in share}
        total = sum(tensor.nbytes for share in shares for tensor in share.values())
        index = {"metadata": {"total_size": total}, "weight_map": place}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _write_distributed(folder: Path, shares: list[dict[str, StageTensor]]) -> None:
    """A folder that torch.distributed.checkpoint.load reads."""
    tensors: dict[str, TensorStorageMetadata] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    for i, share in enumerate(shares):
        places |= dict(_write_items(folder / f"__{i}_0.distcp", share))
        for name, tensor in share.items():
            size = torch.Size(tensor.source.shape)
            chunk = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            tensors[name] = TensorStorageMetadata(TensorProperties(dtype=tensor.dtype), size, [chunk])
    metadata = Metadata(dict(tensors), planner_data={name: (name,) for name in tensors}, storage_data=places)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def _write_items(file: Path, share: Mapping[str, StageTensor]) -> Iterator[tuple[MetadataIndex, _StorageInfo]]:
    """Tensors one after the other, each as torch.save writes it; yields the place of each.  Raises OSError."""
    with file.open("wb") as opened:
        for name, tensor in share.items():
            start, content = opened.tell(), io.BytesIO()
            torch.save(
                tensor.source.read(tensor.dtype), content
            )  # which fails by errors of its own where a disk is full
            opened.write(content.getbuffer())
            corner = torch.Size([0] * len(tensor.source.shape))
            yield MetadataIndex(name, corner), _StorageInfo(file.name, start, opened.tell() - start)
