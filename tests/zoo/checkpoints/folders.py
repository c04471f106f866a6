"""Folders of transformers, as they are saved, renamed, fetched and left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict_saver import save

from tests.zoo.checkpoints.kinds import IDS, Kind, Tried, llama


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
    "a pipeline of diffusers without its models": folder_of(
        only({"model_index.json": {}, "unet/config.json": {}}), refused=True
    ),
    "a component of diffusers": folder_of(
        only({"config.json": {"_class_name": "ControlNetModel", "_diffusers_version": "0.36"}}), refused=True
    ),
    "GGUF": folder_of(only({"x-Q4_K_M.gguf": ""}), refused=True),
    "weights without config.json": folder_of(only({"model.safetensors": ""}), refused=True),
}
