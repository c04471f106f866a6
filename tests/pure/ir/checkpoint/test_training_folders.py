"""Folders of training runs: read in place, the parts of each tensor joined, or refused by name."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._utils
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.formats.pickled import read_pickled
from ir.checkpoint.formats.ranks import rank_files
from ir.errors import SourceError
from ir.sources.folders import model_folder
from tests.support.weights.stored_layer import WEIGHTS, assert_read


def test_weights_in_folders_of_which_some_are_no_steps_are_listed(tmp_path: Path) -> None:
    for part in ("unet", "text_encoder_2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").touch()
    message = r"has weights in folders of its own \(text_encoder_2, unet\); name one with --checkpoint$"
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path)


def test_a_link_to_nothing_is_passed_by_where_there_are_other_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("gone")
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert list(Checkpoint.open(tmp_path)) == ["weight"]


@pytest.mark.parametrize("held", [WEIGHTS, {"model": WEIGHTS, "optimizer": {"state": {"weight": torch.ones(2)}}}])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_folder_of_distributed_checkpoint(held: Any, tmp_path: Path) -> None:
    save(held, checkpoint_id=tmp_path / "c", no_dist=True)
    assert_read(tmp_path / "c")


def written(folder: Path, chunks: dict[tuple[int, int], tuple[int, int]], **more: Any) -> None:
    """Write the layer's weight in chunks (first corner -> size), each in a file of its own, and its bias whole."""
    boxes = {"weight": chunks, "bias": {(0,): (5,)}}
    tensors, places = {}, {}
    for name, parts in boxes.items():
        for at, size in parts.items():
            file = folder / f"__{len(places)}_0.distcp"
            file.write_bytes(b"before")
            with file.open("ab") as f:
                torch.save(WEIGHTS[name][tuple(slice(a, a + n) for a, n in zip(at, size, strict=True))].clone(), f)
            length = file.stat().st_size - 6
            places[MetadataIndex(name, at)] = _StorageInfo(file.name, 6, length, **more)
        listed = [ChunkStorageMetadata(torch.Size(at), torch.Size(size)) for at, size in parts.items()]
        tensors[name] = TensorStorageMetadata(TensorProperties(), WEIGHTS[name].shape, listed)
    with (folder / ".metadata").open("wb") as f:
        pickle.dump(Metadata(tensors, storage_data=places), f)  # type: ignore[arg-type]


def changed(folder: Path, change: Callable[[Any], Any]) -> None:
    """Write the metadata again with a change."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def replaced(folder: Path, name: str, value: Any) -> None:
    """Write something else in place of a one-dimensional tensor."""
    torch.save(value, folder / "other.distcp")
    place = {"relative_path": "other.distcp", "offset": 0, "length": (folder / "other.distcp").stat().st_size}
    changed(folder, lambda m: vars(m.storage_data[MetadataIndex(name, (0,))]).update(place))


CHUNKS = {(3, 0): (2, 3), (0, 0): (3, 1), (0, 1): (3, 2)}


def test_chunks_of_several_processes_tile_a_tensor(tmp_path: Path) -> None:
    written(tmp_path, CHUNKS)
    assert_read(tmp_path)
    tiles = Checkpoint.open(tmp_path).tensors["weight"]
    assert [p.at for p in tiles.pieces] == [(0, 0), (0, 1), (3, 0)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: written(folder, {(0, 0): (3, 3)}), r"does not have all parts of weight, which is \[5, 3\]"),
        (lambda folder: written(folder, CHUNKS, transform_descriptors=["zstd"]), "is compressed, which is not read"),
        (lambda folder: (folder / "__1_0.distcp").unlink(), r"cannot read .*__1_0.distcp, which holds weight: No such"),
        (
            lambda folder: save_file(WEIGHTS, folder / "__1_0.distcp"),
            r"__1_0.distcp has its tensors in safetensors, which is not read in such a folder; save it without",
        ),
        (
            lambda folder: (folder / ".metadata").write_bytes(b"\x80"),
            r"cannot read .*.metadata: it is damaged",
        ),
        (lambda folder: changed(folder, lambda m: setattr(m, "storage_data", None)), r"metadata: it lists no tensors"),
        (
            lambda folder: changed(folder, lambda m: m.storage_data.pop(MetadataIndex("weight", (3, 0)))),
            r"lacks the part of weight at \[3, 0\]; it was not saved whole",
        ),
        (
            lambda folder: changed(folder, lambda m: setattr(m.state_dict_metadata["bias"].chunks[0], "sizes", (4,))),
            r"bias in .* is \[5\]; its metadata says \[4\]",
        ),
        (
            lambda folder: replaced(folder, "bias", []),
            "bias in .* is a list, not a tensor",
        ),
        (lambda folder: (folder / ".metadata").write_bytes(b"N."), r"is not what torch.distributed.checkpoint writes"),
    ],
)
def test_a_damaged_distributed_checkpoint(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    written(tmp_path, CHUNKS)
    damage(tmp_path)
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path)


PLACED = {
    "both": [Shard(0), Shard(1)],
    "twice": [Shard(0), Shard(0)],
    "one": [Replicate(), Shard(1)],
    "after": [_StridedShard(0, split_factor=2), Shard(0)],  # as FSDP divides what tensor parallelism has divided
}


def test_files_of_ranks_are_joined(tmp_path: Path) -> None:
    whole = torch.arange(30.0).view(10, 3)
    for rank in range(4):
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=4)
        mesh = init_device_mesh("cpu", (2, 2))
        parts = {}
        for name, placements in PLACED.items():
            shape, at = compute_local_shape_and_global_offset(whole.shape, mesh, placements)
            local = whole[tuple(slice(a, a + n) for a, n in zip(at, shape, strict=True))].clone()
            parts[name] = DTensor.from_local(local, mesh, placements, run_check=False, shape=whole.shape, stride=(3, 1))
        torch.save({**parts, "plain": torch.ones(2)}, tmp_path / f"model_world_size_4_rank_{rank}.pt")
        torch.distributed.destroy_process_group()
    found = Checkpoint.open(tmp_path)
    assert all(torch.equal(found[name], whole) for name in PLACED)
    assert torch.equal(found["plain"], torch.ones(2))
    last = tmp_path / "model_world_size_4_rank_3.pt"
    assert len(rank_files(last)) == 4
    last.unlink()
    lacking = (
        r"with the files of the other ranks, does not have all parts of both.*; put the files of all ranks into one"
    )
    with pytest.raises(SourceError, match=lacking):
        Checkpoint.open(tmp_path / "model_world_size_4_rank_0.pt")


@pytest.mark.parametrize(
    "name", ["m{0}.pt", "dp{1}_tp{2}.pt", "model-{0}-of-4.bin", "mp_{1}/w_{2}.pt", "rank_{0}_epoch_7.pt"]
)
def test_files_of_ranks_are_found_by_the_numbers_in_their_names(name: str, tmp_path: Path) -> None:
    whole = torch.arange(30.0).view(10, 3)
    for step in (0, 1):  # whose files are named alike, and have other values
        for rank in range(4):
            torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=4)
            mesh, placements = init_device_mesh("cpu", (2, 2)), [Shard(0), Shard(1)]
            shape, at = compute_local_shape_and_global_offset(whole.shape, mesh, placements)
            local = whole[tuple(slice(a, a + n) for a, n in zip(at, shape, strict=True))] * (1 - step)
            part = DTensor.from_local(local, mesh, placements, run_check=False, shape=whole.shape, stride=(3, 1))
            file = tmp_path / (f"{step}_" + name).format(rank, rank // 2, rank % 2)
            file.parent.mkdir(exist_ok=True)
            torch.save({"weight": part}, file)
            torch.distributed.destroy_process_group()
    assert torch.equal(Checkpoint.open(tmp_path / f"0_{name}".format(2, 1, 0))["weight"], whole)


def test_files_of_ranks_of_two_steps_are_not_one_checkpoint(tmp_path: Path) -> None:
    for rank, step in ((0, 1), (1, 1), (0, 2), (1, 2)):
        torch.save(WEIGHTS, tmp_path / f"model_rank_{rank}_step_{step}.pt")
    with pytest.raises(SourceError, match=r"has several files of weights \(model_rank_0_step_1.pt, .* name one"):
        Checkpoint.open(tmp_path)


def test_ranks_that_divide_in_an_unknown_order_are_refused(tmp_path: Path) -> None:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1, 1))
    part = DTensor.from_local(torch.ones(2), mesh, [_StridedShard(0, split_factor=3), Shard(0)], run_check=False)
    torch.save({"weight": part}, tmp_path / "c_rank0.pt")
    torch.distributed.destroy_process_group()
    with pytest.raises(SourceError, match=r"weight in .* is divided in an order that is not known; gather it before"):
        Checkpoint.open(tmp_path / "c_rank0.pt")


@pytest.mark.parametrize("end", [".pt", ".safetensors"])
def test_files_of_ranks_with_other_values_are_refused(end: str, tmp_path: Path) -> None:
    for rank in range(3):
        tensors = {name: tensor * (rank < 2) for name, tensor in WEIGHTS.items()}
        file = tmp_path / f"c_rank{rank}{end}"
        torch.save(tensors, file) if end == ".pt" else save_file(tensors, file)
    with pytest.raises(
        SourceError, match=r"c_rank0.* and c_rank2.* have other values of \w+, and do not say which part"
    ):
        Checkpoint.open(tmp_path)
    assert_read(tmp_path / f"c_rank0{end}")
    (tmp_path / f"c_rank2{end}").unlink()
    assert_read(tmp_path)


def test_what_ranks_have_of_their_own(tmp_path: Path) -> None:
    unknown = torch.full((2, 2), torch.nan)
    for rank in range(2):
        own = torch.full((4,), rank, dtype=torch.uint8)
        run = {"optimizer": {"state": {0: {"exp_avg": own}}}, "rng": [{"torch": own}], "cuda_rng_state": own}
        torch.save({"model": {**WEIGHTS, "unknown": unknown}, **run}, tmp_path / f"c_rank{rank}.pt")
    found = Checkpoint.open(tmp_path).under("model.")
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())
    assert found["unknown"].isnan().all()


def test_several_models_of_accelerate(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model_1.safetensors"):
        save_file(WEIGHTS, tmp_path / name)
    with pytest.raises(SourceError, match=r"of several models \(model.safetensors, model_1.safetensors\); name one of"):
        Checkpoint.open(tmp_path)
    assert_read(tmp_path / "model_1.safetensors")


def test_a_part_that_is_a_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    part = DTensor.from_local(torch.ones(2), mesh, [Partial()], run_check=False)
    torch.save({"weight": part}, tmp_path / "c_rank0.pt")
    torch.distributed.destroy_process_group()
    with pytest.raises(SourceError, match=r"weight in .* is distributed as Partial; gather it before saving"):
        read_pickled(tmp_path / "c_rank0.pt")


ZERO, MEGATRON = "global_step5/{}mp_rank_00_model_states.pt", "iter_0000007/mp_rank_0{}/model_optim_rng.pt"


@pytest.mark.parametrize(("latest", "file"), [("latest", ZERO), ("latest_checkpointed_iteration.txt", MEGATRON)])
def test_folders_of_deepspeed_and_megatron(latest: str, file: str, tmp_path: Path) -> None:
    (tmp_path / latest).write_text("global_step5" if file == ZERO else "7\n")
    whole = tmp_path / file.format("" if file == ZERO else 0)
    whole.parent.mkdir(parents=True)
    torch.save({"module": WEIGHTS, "args": Namespace(a=Fraction(1, 2))}, whole)
    assert_read(tmp_path)
    part = tmp_path / file.format("zero_pp_rank_0_" if file == ZERO else 1)
    part.parent.mkdir(exist_ok=True)
    whole.rename(part) if file == ZERO else torch.save({}, part)
    deepspeed = "whose weights are divided over files; join them first: python .*/zero_to_fp32.py"
    message = deepspeed if file == ZERO else "divided over 2 ranks; convert it first: python tools/checkpoint"
    with pytest.raises(SourceError, match=message):
        Checkpoint.open(tmp_path)


def test_weights_of_another_library_in_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").touch()
    with pytest.raises(SourceError, match=r"onnx/model.onnx is a file of ONNX, which is not read: save its weights as"):
        Checkpoint.open(tmp_path)


def test_a_part_of_each_tensor_in_a_file_is_named(tmp_path: Path) -> None:
    """As HuggingFaceStorageWriter of torch.distributed.checkpoint leaves them before they are consolidated."""
    for rank in (1, 2):
        (tmp_path / f"shard-0000{rank}-model-00001-of-00001.safetensors").touch()
    with pytest.raises(
        SourceError, match=r"has a part of each tensor in files such as shard-00001-model-.*; save it wi"
    ):
        Checkpoint.open(tmp_path)


def test_variants_and_other_names_of_files(tmp_path: Path) -> None:
    shards = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard in shards:
        shard.write_bytes(b"")
    with pytest.raises(
        SourceError, match=r"has shards, such as .*-of-00002.safetensors, without model.safetensors.ind"
    ):
        Checkpoint.open(tmp_path)
    shards[1].unlink()  # one of two, alone
    with pytest.raises(
        SourceError, match=r"has shards, such as .*1-of-00002.safetensors, without model.safetensors.ind"
    ):
        Checkpoint.open(tmp_path)
    shards[0].unlink()
    for name in ("model.fp16.safetensors", "model.fp32.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match=r"has its weights as fp16, fp32: say --variant fp16"):
        Checkpoint.open(tmp_path)
    with pytest.raises(SourceError, match=r"cannot read .*model.fp32.safetensors: "):
        Checkpoint.open(tmp_path, "fp32")
    for name in ("model.fp16.safetensors", "model.fp32.safetensors"):
        (tmp_path / name).unlink()
    torch.save(WEIGHTS, tmp_path / "last.pth")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    assert_read(tmp_path)
    torch.save(WEIGHTS, tmp_path / "best.pth")
    with pytest.raises(SourceError, match=r"has several files of weights \(best.pth, last.pth\); name one"):
        Checkpoint.open(tmp_path)


def test_a_variant_is_not_another_one(tmp_path: Path) -> None:
    """As transformers, which does not take the plain weights in its place."""
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(
        SourceError, match=r"no weights of the variant fp16, but model.safetensors: leave --variant out"
    ):
        Checkpoint.open(tmp_path, "fp16")
    save_file(WEIGHTS, tmp_path / "mine.fp16.safetensors")
    assert set(Checkpoint.open(tmp_path, "fp16").tensors) == set(WEIGHTS)
    (tmp_path / "mine.fp16.safetensors").rename(tmp_path / "mine.fp16-00001-of-00002.safetensors")
    with pytest.raises(SourceError, match=r"has several files of fp16, such as mine.fp16-00001-.*, without index"):
        Checkpoint.open(tmp_path, "fp16")


def test_an_adapter_in_place_of_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file(WEIGHTS, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="has an adapter and no weights of a model: say --adapter"):
        Checkpoint.open(tmp_path)


def test_a_run_of_megatron_in_place_of_a_model_says_how_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    step = tmp_path / "iter_0000007/mp_rank_00"
    step.mkdir(parents=True)
    torch.save({"model": WEIGHTS}, step / "model_optim_rng.pt")
    with pytest.raises(SourceError, match=r"has weights without config.json; give a model file that makes the model"):
        model_folder(tmp_path)
