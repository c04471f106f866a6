"""Files and folders of training, for a module of the user's."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save

from tests.zoo.checkpoints.kinds import Kind, Tried, X, net


def trained(write: Callable[[Path], str], refused: bool = False, **options: Any) -> Kind:
    """What `write` leaves in a folder, as the weights of a small module; it returns the name of the file or folder."""

    def make(folder: Path) -> Tried:
        given = {"checkpoint": folder / write(folder), **options}
        fresh = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
        return Tried(fresh, {"input": X}, None if refused else net()(X), given)

    return make


def pickled(table: Callable[[dict[str, torch.Tensor]], Any], refused: bool = False, **options: Any) -> Kind:
    """What `table` makes of the weights, in a file of torch.save."""

    def write(folder: Path) -> str:
        torch.save(table(net().state_dict()), folder / "c.pt")
        return "c.pt"

    return trained(write, refused, **options)


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


def zeros(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


HYPER = {"args": Namespace(lr=0.1), "time": timedelta(1), "share": Fraction(1, 2), "path": Path("x")}

TRAINED: dict[str, Kind] = {
    "a state dict": pickled(dict),
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
