"""The folder that is meant where the user names one that leads to it: an adapter's, the hub's cache, a trainer's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ir.checkpoint.adapters.settings import SETTINGS, read_settings
from ir.checkpoint.files import whose_names
from ir.checkpoint.formats.gguf.file import SUFFIX, first_parts, is_gguf
from ir.checkpoint.layouts import WEIGHT_SUFFIXES, foreign_layout, step_number, weights_in
from ir.errors import SourceError

CONFIG = "config.json"


def base_folder(adapter: Path) -> Path:
    """The folder of the model that an adapter was made for: itself, or the one that it names.

    A name of the Hugging Face hub is looked up in the cache of that.  Raises SourceError where it is not here.
    """
    if (adapter / CONFIG).is_file():
        return adapter
    name = str(read_settings(adapter).get("base_model_name_or_path") or "")
    for place in (Path(name), adapter / name, *_snapshots(_hub() / f"models--{name.replace('/', '--')}")):
        if name and (place / CONFIG).is_file():
            return place
    raise SourceError(
        f"{adapter} has an adapter of {name or 'a model that it does not name'}, which is not here; give the model's "
        f"folder, and the adapter beside it: stagecut compile MODEL --adapter {adapter}"
    )


def model_folder(path: Path) -> Path:
    """The folder of a model: the path itself, or the snapshot of the hub's cache that it holds; or its one GGUF file.

    Raises SourceError for another kind of folder, with what it is and what to give in its place.
    """
    if (path / CONFIG).is_file() or (path / SETTINGS).is_file():
        return path
    if snapshot := next(_snapshots(path), None):
        return snapshot
    if is_gguf(path):
        return path
    if len(files := first_parts(sorted(path.glob(f"*{SUFFIX}")))) == 1:
        return files[0]
    raise SourceError(f"{path} {_what_it_is(path)}")


def _hub() -> Path:
    """The folder in which the Hugging Face hub's library keeps what it fetched."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _snapshots(cached: Path) -> Iterator[Path]:
    """The snapshots of a model's folder in the hub's cache; that of the branch `main` is the first."""
    main = cached / "refs/main"
    found = sorted((cached / "snapshots").glob("*/"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    named = main.read_text().strip() if main.is_file() else ""
    for folder in sorted(found, key=lambda folder: folder.name != named):
        if (folder / CONFIG).is_file():
            yield folder


def _has_step(path: Path) -> bool:
    """Whether a folder names the last step in it, with weights that can be read, as those of DeepSpeed and Megatron."""
    try:
        return weights_in(path).parent != path
    except SourceError:
        return False


def _what_it_is(path: Path) -> str:
    """The kind of a folder without config.json, and what to do."""
    if known := foreign_layout(path):
        return known
    saved = {file.parent for name in (CONFIG, SETTINGS) for file in path.glob(f"*/{name}")}
    if steps := sorted((p for p in saved if p.name.startswith("checkpoint-")), key=lambda step: step_number(step.name)):
        return f"is the output of a training run; name a checkpoint in it, the newest is {steps[-1]}"
    if cached := sorted(path.glob("models--*/snapshots")) or sorted(path.glob("hub/models--*/snapshots")):
        return f"is the cache of the Hugging Face hub; name a model in it, such as {cached[0].parent}"
    if files := sorted(path.glob(f"*{SUFFIX}")):
        return f"has several GGUF files; name one, such as {files[0]}"
    if list(path.glob("open_clip_*")):
        return "is a checkpoint of open_clip without a model_cfg in its open_clip_config.json; fetch it again"
    if list(path.glob("stage_*.py")) and (path / "manifest.json").is_file():
        return "is an artifact, so it is cut already: stagecut recut cuts it otherwise; or give the model that was cut"
    if any(list(path.glob(f"*{suffix}")) for suffix in (".distcp", *WEIGHT_SUFFIXES)) or _has_step(path):
        if whose := whose_names(path):
            return f"has weights without config.json; {whose}"
        return (
            "has weights without config.json; give a model file that makes the model, and the weights with "
            f"--checkpoint {path}"
        )
    if saved:
        return f"has models or adapters in folders of their own; name one, such as {sorted(saved)[0]}"
    if any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return "has a tokenizer and no model; fetch config.json and the weights, too"
    if not any(path.iterdir()):
        return "is empty; fetch a checkpoint into it"
    return "is a folder without config.json; a checkpoint folder has one beside its weights"
