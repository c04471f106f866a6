"""Checkpoints as people have them, each made, cut in two and run.  `--write` puts the table into docs/coverage.md.

python -m tests.zoo.checkpoints [NAME …] [--write]
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save
from torch.utils._pytree import tree_leaves

from ir.errors import CompileError
from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.zoo.table import CHECKPOINTS, COVERAGE, with_section

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 96}
QUICK: dict[str, Any] = {"stages": 2, "progress": False, "time_limit": 2.0, "size_limit": 0.0}
X = torch.linspace(-1, 1, 32).view(4, 8)
IDS = torch.arange(14).view(2, 7) + 3


@dataclass(frozen=True)
class Tried:
    """A source with options, a call of it, and what the call must return; None where it is to be refused."""

    source: Any
    call: Mapping[str, Any]
    expected: torch.Tensor | None
    options: Mapping[str, Any] = field(default_factory=dict)


Kind = Callable[[Path], Tried]


@cache
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()


@cache
def llama() -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=64, use_cache=False)
    return hf.LlamaForCausalLM(config).eval()


# ---- files and folders for a module of the user's


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


# ---- folders of libraries


def folder_of(change: Callable[[Path], Any], at: str = "m", refused: bool = False, **options: Any) -> Kind:
    """The folder that transformers saves, once `change` has changed it; `at` is the path to name."""

    def make(folder: Path) -> Tried:
        (folder / at).mkdir(parents=True, exist_ok=True)
        llama().save_pretrained(folder / at, max_shard_size="60KB" if at == "shards" else "5GB")
        found = change(folder / at)
        expected = llama() if found is None else found
        with torch.no_grad():
            logits = None if refused else expected(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        source = folder / at if at in ("m", "shards") else folder / at.split("/")[0]
        call: dict[str, Any] = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
        call |= {"adapter": "m"} if options.get("adapter") == "keep" else {}
        return Tried(str(source), call, logits, options)

    return make


def rewritten(name: str, rename: Callable[[str], str] = str) -> Callable[[Path], None]:
    """Save the weights under another file's name, and other names of tensors."""

    def change(folder: Path) -> None:
        tensors = {rename(n): t for n, t in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name, metadata={"format": "pt"})
        else:
            torch.save(tensors, folder / name)

    return change


def as_distributed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    save(llama().state_dict(), checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)


def adapter(**settings: Any) -> Callable[[Path], Any]:
    """Write a LoRA adapter beside the weights; returns the model with it merged."""

    def change(folder: Path) -> Any:
        torch.manual_seed(1)
        merged, tensors = pickle.loads(pickle.dumps(llama())), {}
        for i, layer in enumerate(merged.model.layers):
            down, up = torch.randn(4, 32), torch.randn(32, 4)
            stem = f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_"
            tensors |= {f"{stem}A.weight": down, f"{stem}B.weight": up}
            with torch.no_grad():
                layer.self_attn.q_proj.weight += up @ down * 2.0
        save_file(tensors, folder / "adapter_model.safetensors")
        rules = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **settings}
        (folder / "adapter_config.json").write_text(json.dumps(rules))
        return merged

    return change


def snapshot(folder: Path) -> None:
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs/main").write_text(folder.name)


def only(files: Mapping[str, Any]) -> Callable[[Path], None]:
    """A folder with these small files alone."""

    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))

    return change


# ---- folders that other libraries write


def written_by(library: str, write: Callable[[Any, Path], tuple[Any, dict[str, Any]]], **bare: Any) -> Kind:
    """The folder that a library saves: `write` returns the model and a call.

    Where the library is not installed, a folder with the settings `bare` by the names of their files is refused.
    """

    def make(folder: Path) -> Tried:
        folder = folder / "m"
        folder.mkdir()
        if find_spec(library) is None:
            for name, settings in bare.items():
                (folder / f"{name}.json").write_text(json.dumps(settings))
            return Tried(str(folder), {}, None)
        torch.manual_seed(0)
        model, call = write(import_module(library), folder)
        with torch.no_grad():
            expected = model.eval()(**call)
        return Tried(str(folder), call, first_tensor(expected))

    return make


def first_tensor(out: Any) -> torch.Tensor:
    """The logits of an output, or else its first tensor."""
    held = out.to_tuple() if hasattr(out, "to_tuple") else out
    return out.logits if hasattr(out, "logits") else next(t for t in tree_leaves(held) if isinstance(t, torch.Tensor))


def unet(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    model = diffusers.UNet2DModel(8, **blocks, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 8, 8), "timestep": torch.tensor(5)}


def autoencoder(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    model = diffusers.AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, sample_size=8)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 8, 8)}


def timm_classifier(timm: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    model = timm.create_model("resnet10t", num_classes=10)
    timm.models.save_for_hf(model, str(folder), safe_serialization=True)
    return model, {"x": torch.randn(3, 3, *model.pretrained_cfg["input_size"][1:])}


def open_clip_encoders(open_clip: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return model, {"image": torch.randn(3, 3, 32, 32), "text": torch.randint(1, 99, (2, 16))}


TIMM = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": {}}
VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
WORDS = {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2}
CLIP = {"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": WORDS}, "preprocess_cfg": {}}
FOLDERS: dict[str, Kind] = {
    "transformers": folder_of(lambda folder: None),
    "transformers, shards": folder_of(lambda folder: None, at="shards"),
    "transformers, `.bin`": folder_of(rewritten("pytorch_model.bin")),
    "transformers, `--variant fp16`": folder_of(rewritten("model.fp16.safetensors"), variant="fp16"),
    "transformers, a variant alone": folder_of(rewritten("model.fp16.safetensors")),
    "transformers, names with `net.module.`": folder_of(rewritten("model.safetensors", "net.module.{}".format)),
    "accelerate, `pytorch_model_fsdp_0`": folder_of(as_distributed),
    "the hub's cache": folder_of(snapshot, at="models--a--b/snapshots/0123"),
    "a Trainer's output": folder_of(lambda folder: None, at="run/checkpoint-500", refused=True),
    "LoRA beside the weights": folder_of(adapter()),
    "LoRA with a scale over the root of the rank": folder_of(adapter(use_rslora=True, lora_alpha=4)),
    "LoRA beside the weights, with `--adapter keep`": folder_of(adapter(), adapter="keep"),
    "DoRA": folder_of(adapter(use_dora=True), refused=True),
    "IA3": folder_of(adapter(peft_type="IA3"), refused=True),
    "prompt tuning": folder_of(adapter(peft_type="PROMPT_TUNING"), refused=True),
    "a pipeline of diffusers": folder_of(only({"model_index.json": {}, "unet/config.json": {}}), refused=True),
    "a component of diffusers": folder_of(
        only({"config.json": {"_class_name": "ControlNetModel", "_diffusers_version": "0.36"}}), refused=True
    ),
    "diffusers, `UNet2DModel`": written_by("diffusers", unet),
    "diffusers, `AutoencoderKL`": written_by("diffusers", autoencoder),
    "timm": written_by("timm", timm_classifier, config=TIMM),
    "open_clip": written_by("open_clip", open_clip_encoders, open_clip_config=CLIP),
    "GGUF": folder_of(only({"x-Q4_K_M.gguf": ""}), refused=True),
    "weights without config.json": folder_of(only({"model.safetensors": ""}), refused=True),
}

KINDS = {"Files and folders of training, for a module of the user's": TRAINED, "Folders": FOLDERS}


def tried(kind: Kind) -> str:
    """The largest difference from the model, or the message with which it was refused; raises for anything else."""
    with tempfile.TemporaryDirectory() as name:
        found = kind(Path(name))
        args = () if isinstance(found.source, str) else tuple(found.call.values())
        try:
            compile_model(found.source, args, out=Path(name) / "out", **QUICK, **found.options)
        except CompileError as e:
            if found.expected is not None:
                raise
            return "refused: " + str(e).replace(f"{name}/", "").replace("|", "\\|")
        if found.expected is None:
            raise AssertionError("it is to be refused")
        with Pipeline.load(Path(name) / "out", devices=["cpu"]) as pipe, torch.no_grad():
            out = pipe(**found.call)
        difference = (first_tensor(out) - found.expected).abs().max().item()
        assert difference <= 1e-6, difference
        return f"difference {difference:.2g}"


def rows(results: Mapping[str, str]) -> Iterator[str]:
    for title, kinds in KINDS.items():
        yield f"| {title} | |\n|---|---|"
        yield from (f"| {name} | {results[name]} |" for name in kinds)
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="the kinds to try; all by default")
    parser.add_argument("--write", action="store_true", help="write the table into docs/coverage.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    results, faults = dict[str, str](), 0
    for name, kind in {name: kind for kinds in KINDS.values() for name, kind in kinds.items()}.items():
        if options.names and name not in options.names:
            continue
        try:
            results[name] = tried(kind)
        except Exception as e:
            results[name], faults = f"FAILS: {type(e).__name__}: {e}", faults + 1
        print(f"{name}: {results[name]}"[:200], flush=True)
    if options.write and not options.names:
        COVERAGE.write_text(with_section(COVERAGE.read_text(), CHECKPOINTS, "\n".join(rows(results))))
    print(f"{len(results) - faults} of {len(results)} are equal, or refused as they should be")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
