"""Files and folders of training, for a module of the user's."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.zoo.checkpoints.kinds import Kind, Tried, X, net


def trained(
    write: Callable[[Path], str], refused: bool = False, rounded: torch.dtype = torch.float32, **options: Any
) -> Kind:
    """What `write` leaves in a folder, as the weights of a small module; it returns the name of the file or folder.

    `rounded`: the dtype in which they are saved.
    """

    def make(folder: Path) -> Tried:
        given = {"checkpoint": folder / write(folder), **options}
        fresh = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
        saved = deepcopy(net()).to(rounded).float()
        return Tried(fresh, {"input": X}, None if refused else saved(X), given)

    return make


def pickled(table: Callable[[dict[str, Any]], Any], refused: bool = False, **options: Any) -> Kind:
    """What `table` makes of the weights, in a file of torch.save."""

    def write(folder: Path) -> str:
        torch.save(table(net().state_dict()), folder / "c.pt")
        return "c.pt"

    return trained(write, refused, **options)


def repacked(kind: int) -> Callable[[Path], str]:
    """A file of torch.save that another program has packed anew, as zip does."""

    def write(folder: Path) -> str:
        torch.save(net().state_dict(), folder / "saved.pt")
        with zipfile.ZipFile(folder / "saved.pt") as old, zipfile.ZipFile(folder / "c.pt", "w", kind) as new:
            for name in reversed(old.namelist()):
                new.writestr(name, old.read(name))
        return "c.pt"

    return write


def distributed(table: Callable[[dict[str, torch.Tensor]], Any]) -> Kind:
    def write(folder: Path) -> str:
        save(table(net().state_dict()), checkpoint_id=folder / "c", no_dist=True)
        return "c"

    return trained(write)


def placed_at(*files: str, refused: bool = False, **latest: str) -> Kind:
    """Files of torch.save with the weights under `module`, and texts that name the latest step."""

    def write(folder: Path) -> str:
        for file in files:
            (folder / "c" / file).parent.mkdir(parents=True, exist_ok=True)
            torch.save({"module": net().state_dict(), "args": Namespace(a=Fraction(1, 2))}, folder / "c" / file)
        for name, text in latest.items():
            (folder / "c" / name).with_suffix("" if name == "latest" else ".txt").write_text(text)
        return "c"

    return trained(write, refused)


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def script(folder: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net()), folder / "c.pt")
    return "c.pt"


def program(folder: Path) -> str:
    torch.export.save(torch.export.export(net(), (X,)), folder / "c.pt2")
    return "c.pt2"


def changed(change: Callable[[nn.Module], nn.Module | None], refused: bool = False) -> Kind:
    """The weights of the module after `change`, which returns another one or changes that one itself."""

    def table(_: Any) -> dict[str, Any]:
        module = deepcopy(net())
        return (change(module) or module).state_dict()

    return pickled(table, refused)


def pruned(module: nn.Module) -> None:
    prune.l1_unstructured(module.get_submodule("0"), "weight", 0.5)


def weight_normed(module: nn.Module) -> None:
    weight_norm(module.get_submodule("0"))


def averaged(module: nn.Module) -> nn.Module:
    return AveragedModel(module)


def zeros(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def legacy(folder: Path) -> str:
    """The form of torch.save before 1.6."""
    torch.save(net().state_dict(), folder / "c.pt", _use_new_zipfile_serialization=False)
    return "c.pt"


def arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: np.asarray(tensor.tolist(), np.float32) for name, tensor in tensors.items()}


def array_file(folder: Path) -> str:
    np.savez(folder / "c.npz", **arrays(net().state_dict()))
    return "c.npz"


def named(name: str, text: bytes) -> Callable[[Path], str]:
    """A file of another kind."""

    def write(folder: Path) -> str:
        (folder / name).write_bytes(text)
        return name

    return write


def pieces_of_one(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that lie in one storage, with gaps, as flat parameters do."""
    whole, at, found = torch.zeros(sum(t.numel() + 3 for t in tensors.values())), 1, dict[str, torch.Tensor]()
    for name, tensor in tensors.items():
        found[name] = whole[at : at + tensor.numel()].view(tensor.shape).copy_(tensor)
        at += tensor.numel() + 3
    return found


def ranks(shard: int, named: str = "model_rank_{}.pt") -> Callable[[Path], str]:
    """A file of each of two ranks, with its parts of tensors that a dimension of is divided."""

    def write(folder: Path) -> str:
        for rank in range(2):
            dist.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
            mesh, parts = init_device_mesh("cpu", (2,)), {}
            for name, tensor in net().state_dict().items():
                dim = min(shard, tensor.dim() - 1)
                part = tensor.chunk(2, dim)[rank].clone()
                parts[name] = DTensor.from_local(part, mesh, [Shard(dim)], run_check=False)
            file = folder / named.format(rank)
            file.parent.mkdir(exist_ok=True)
            torch.save({"model": parts}, file)
            dist.destroy_process_group()
        return named.format(0)

    return write


def ranks_of_two_kinds(folder: Path) -> str:
    """A file of each of four ranks: FSDP divides the rows that tensor parallelism has divided."""
    placements = [_StridedShard(0, split_factor=2), Shard(0)]
    for rank in range(4):
        dist.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
        mesh, parts = init_device_mesh("cpu", (2, 2)), {}
        for name, tensor in net().state_dict().items():
            part = tensor.chunk(2)[rank % 2].chunk(2)[rank // 2].clone()
            parts[name] = DTensor.from_local(
                part, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
            )
        torch.save({"model": parts}, folder / f"model_rank_{rank}.pt")
        dist.destroy_process_group()
    return "model_rank_0.pt"


def steps(folder: Path) -> str:
    """The root of a run of torchtitan: a folder of torch.distributed.checkpoint a step."""
    for step in (10, 100):
        save(net().state_dict(), checkpoint_id=folder / f"c/step-{step}", no_dist=True)
    return "c"


def lightning_folder(folder: Path) -> str:
    """Lightning with DeepSpeed: a folder whose `latest` names the folder in it."""
    at = folder / "c/checkpoint"
    at.mkdir(parents=True)
    torch.save({"module": prefixed("net.", net().state_dict())}, at / "mp_rank_00_model_states.pt")
    (folder / "c/latest").write_text("checkpoint")
    return "c"


def sharded_files(folder: Path) -> str:
    """accelerate's save_model: files and their index."""
    (folder / "c").mkdir()
    place = {}
    for i, (name, tensor) in enumerate(net().state_dict().items()):
        place[name] = f"model-{i}.safetensors"
        save_file({name: tensor}, folder / "c" / place[name])
    (folder / "c/model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    return "c"


def in_safetensors(folder: Path) -> str:
    save_file(net().state_dict(), folder / "c.pt")
    return "c.pt"


def of_all_ranks(folder: Path) -> str:
    """What accelerate writes with FSDP: the weights of all ranks, and the state of the run beside them."""
    (folder / "c").mkdir()
    torch.save(net().state_dict(), folder / "c/pytorch_model_fsdp.bin")
    for name in ("optimizer", "scheduler", "sampler", "dl_state_dict"):
        torch.save({"state": {}}, folder / f"c/{name}.bin")
    return "c"


def universal(folder: Path) -> str:
    for name, tensor in net().state_dict().items():
        (folder / "c/step5" / "zero" / name).mkdir(parents=True)
        torch.save(tensor, folder / "c/step5/zero" / name / "fp32.pt")
    (folder / "c/latest_universal").write_text("step5")
    return "c"


def two_encoders(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A query's and a key's, as MoCo has them."""
    names = "module.encoder_q.", "module.encoder_k."
    return {"state_dict": prefixed(names[0], weights) | prefixed(names[1], zeros(weights))}


HYPER = {"args": Namespace(lr=0.1), "time": timedelta(1), "share": Fraction(1, 2), "path": Path("x")}


class Settings:
    class Inner:
        """A class in a class, which pickles of torch name as an attribute of that."""


TRAINED: dict[str, Kind] = {
    "hyperparameters of a class in a class, and bytes": pickled(
        lambda w: {"state_dict": w, "hyper_parameters": {"a": Settings.Inner(), "b": b"x"}}
    ),
    "names that are bytes": pickled(lambda w: {name.encode(): t for name, t in w.items()}, refused=True),
    "a dict with a state dict for each part": pickled(
        lambda w: {part: {n[2:]: t for n, t in w.items() if n.startswith(part)} for part in ("0", "2")}
    ),
    "a list of a state dict and other things": pickled(lambda w: [w, {"lr": 0.1}, 3]),
    "MoCo: `module.encoder_q.` and `module.encoder_k.`": pickled(two_encoders, refused=True),
    "the same, with `--weights-prefix encoder_q.`": pickled(two_encoders, weights_prefix="encoder_q."),
    "safetensors, named as a file of torch.save": trained(in_safetensors),
    "accelerate with FSDP, one file of all ranks": trained(of_all_ranks),
    "FSDP's flat parameter": pickled(
        lambda w: {"_flat_param": torch.cat([t.flatten() for t in w.values()])}, refused=True
    ),
    "DeepSpeed's universal checkpoint": trained(universal, refused=True),
    "a pickle of numpy arrays": trained(named("c.pkl", pickle.dumps({"0.weight": np.ones(2)})), refused=True),
    "compressed by gzip": trained(named("c.pt", b"\x1f\x8b" + bytes(64)), refused=True),
    "a web page in place of the file": trained(named("c.pt", b"<!doctype html><html>"), refused=True),
    "a state dict": pickled(dict),
    "a state dict, packed anew by zip": trained(repacked(zipfile.ZIP_STORED)),
    "a state dict, packed anew by zip, compressed": trained(repacked(zipfile.ZIP_DEFLATED), refused=True),
    "`model_state_dict`, with an optimizer": pickled(lambda w: {"model_state_dict": w, "optimizer": {"lr": 1}}),
    "`model`, names with `_orig_mod.`": pickled(lambda w: {"model": prefixed("_orig_mod.", w)}),
    "names with `module._orig_mod.`": pickled(lambda w: prefixed("module._orig_mod.", w)),
    "names with `_checkpoint_wrapped_module` inside": pickled(
        lambda w: {name.replace("0.", "0._checkpoint_wrapped_module."): t for name, t in w.items()}
    ),
    "Lightning: `state_dict`, hyperparameters of any class": pickled(
        lambda w: {"state_dict": prefixed("net.", w), "hyper_parameters": HYPER}
    ),
    "a whole module": pickled(lambda w: net()),
    "a whole module in a dict": pickled(lambda w: {"model": net(), "epoch": 1}),
    "tensors that are not contiguous, or negated": pickled(
        lambda w: {name: torch.complex(t, -t).conj().imag.t().contiguous().t() for name, t in w.items()}
    ),
    "`model` and `model_ema` that differ": pickled(lambda w: {"model": w, "model_ema": zeros(w)}, refused=True),
    "the same, with `--weights-prefix model.`": pickled(
        lambda w: {"model": w, "model_ema": zeros(w)}, weights_prefix="model."
    ),
    "names with `model.` and with `ema.`": pickled(
        lambda w: prefixed("model.", w) | prefixed("ema.", zeros(w)), refused=True
    ),
    "sparse tensors": pickled(lambda w: {n: t.to_sparse() for n, t in w.items()}, refused=True),
    "tensors on the meta device": pickled(lambda w: {n: t.to("meta") for n, t in w.items()}, refused=True),
    "TorchScript": trained(script, refused=True),
    "what torch.export.save writes, as weights": trained(program, refused=True),
    "torch's AveragedModel": changed(averaged),
    "torch's weight_norm": changed(weight_normed, refused=True),
    "torch's pruning": changed(pruned, refused=True),
    "the form of torch.save before 1.6": trained(legacy),
    "tensors that lie in one storage": pickled(pieces_of_one),
    "parameters, and float16": pickled(lambda w: {n: nn.Parameter(t.half()) for n, t in w.items()}, rounded=torch.half),
    "nn.DataParallel as a whole": pickled(lambda w: nn.DataParallel(net())),
    "what torch.compile returns, as a whole": pickled(lambda w: torch.compile(net()), refused=True),
    "Composer: `state`, `model`": pickled(lambda w: {"state": {"model": prefixed("module.", w), "rank": 0}, "rng": []}),
    "MMEngine: `state_dict`, `ema_state_dict` that differ": pickled(
        lambda w: {"state_dict": w, "ema_state_dict": prefixed("module.", zeros(w)), "meta": HYPER}, refused=True
    ),
    "BasicSR: `params`, `params_ema` that differ": pickled(
        lambda w: {"params": w, "params_ema": zeros(w)}, refused=True
    ),
    "the same, with `--weights-prefix params_ema.`": pickled(
        lambda w: {"params": zeros(w), "params_ema": w}, weights_prefix="params_ema."
    ),
    "Ultralytics: `model` and `ema` as modules that differ": pickled(
        lambda w: {"model": net(), "ema": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))}, refused=True
    ),
    "a shadow of the weights beside the optimizer": pickled(
        lambda w: {"model": w, "optimizer": {"state": {0: {"exp_avg": w["0.weight"] * 0}}, "param_groups": [{}]}}
    ),
    "an optimizer alone": pickled(
        lambda w: {"state": {0: {"exp_avg": w["0.weight"]}}, "param_groups": []}, refused=True
    ),
    "numpy arrays among hyperparameters": pickled(
        lambda w: {"state_dict": w, "hyper_parameters": {"a": np.ones(3), "b": np.float64(2), "c": np.int32(1)}}
    ),
    "numpy arrays as weights": pickled(arrays, refused=True),
    "a file of numpy": trained(array_file, refused=True),
    "a file of Keras": trained(named("c.h5", b"\x89HDF\r\n\x1a\n" + bytes(64)), refused=True),
    "a file of Flax": trained(named("c.msgpack", bytes(64)), refused=True),
    "a file of ONNX": trained(named("c.onnx", bytes(64)), refused=True),
    "a file of PaddlePaddle": trained(named("c.pdparams", bytes(64)), refused=True),
    "a tar archive": trained(named("c.pt", bytes(257) + b"ustar" + bytes(250)), refused=True),
    "a state dict of HQQ": pickled(lambda w: {f"{n}.W_q": t.to(torch.uint8) for n, t in w.items()}, refused=True),
    "a state dict of quanto": pickled(lambda w: {f"{n}._data": t.to(torch.int8) for n, t in w.items()}, refused=True),
    "a pointer of git-lfs": trained(
        named("c.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"), refused=True
    ),
    "a file of rank 0 and 1, rows divided": trained(ranks(0)),
    "a file of rank 0 and 1, columns divided": trained(ranks(1)),
    "a file of rank 0 and 1, as step100-0.pt and step100-1.pt": trained(ranks(0, "step100-{}.pt")),
    "a file of rank 0 and 1, in folders of their own": trained(ranks(0, "{}/model.pt")),
    "files of ranks, FSDP over tensor parallelism": trained(ranks_of_two_kinds),
    "shards with an index": trained(sharded_files),
    "the root of a run, a folder of torch.distributed.checkpoint a step": trained(steps, refused=True),
    "Lightning with DeepSpeed": trained(lightning_folder),
    "DeepSpeed's pipeline, a file a layer": placed_at(
        "global_step5/layer_00-model_states.pt",
        "global_step5/mp_rank_00_model_states.pt",
        latest="global_step5",
        refused=True,
    ),
    "torch.distributed.checkpoint, flat": distributed(dict),
    "torch.distributed.checkpoint, nested, with an optimizer": distributed(
        lambda w: {"app": {"model": w, "optim": {"state": torch.ones(2)}}}
    ),
    "DeepSpeed, ZeRO 1 and 2": placed_at("global_step5/mp_rank_00_model_states.pt", latest="global_step5"),
    "DeepSpeed, ZeRO 3": placed_at(
        "global_step5/zero_pp_rank_0_mp_rank_00_model_states.pt", latest="global_step5", refused=True
    ),
    "Megatron, one rank": placed_at("iter_0000007/mp_rank_00/model_optim_rng.pt", latest_checkpointed_iteration="7"),
    "Megatron, two ranks": placed_at(
        "iter_0000007/mp_rank_00/model_optim_rng.pt",
        "iter_0000007/mp_rank_01/model_optim_rng.pt",
        latest_checkpointed_iteration="7",
        refused=True,
    ),
}
