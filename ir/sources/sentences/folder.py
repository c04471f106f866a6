"""Folders of sentence-transformers: a transformer, and the modules behind it that its settings describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.formats.json_text import json_file
from ir.checkpoint.names import stored_names
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError
from ir.sources.meta import parameters_on_meta
from ir.sources.sentences.modules import (
    POOLING_WAYS,
    SentenceCut,
    SentenceDense,
    SentenceEncoder,
    SentenceLayerNorm,
    SentenceNorm,
    SentencePooling,
    SpladePooling,
)
from ir.sources.source import Source

PARTS_FILE = "modules.json"
_CLASSIFIER = "model_head.pkl"
_LIBRARY = "config_sentence_transformers.json"


@dataclass(frozen=True)
class SentencePart:
    """A module of a sentence transformer: its kind, the folder of its settings and weights."""

    kind: str
    folder: Path


def sentence_parts(path: Path) -> tuple[SentencePart, ...]:
    """The modules that a folder lists, the transformer first; none where it lists none.  Raises SourceError."""
    if not (path / PARTS_FILE).is_file():
        return ()
    try:
        listed = json_file(path / PARTS_FILE)
        return tuple(SentencePart(str(e["type"]).rpartition(".")[2], path / str(e["path"])) for e in listed)
    except (TypeError, KeyError) as e:
        raise SourceError(f"cannot read {path / PARTS_FILE}: {e}") from e


def with_sentence_parts(source: Source, parts: Sequence[SentencePart]) -> Source:
    """The source of a transformer with the modules behind it, or a note of those that are not known.

    Raises SourceError where one of their files is missing or damaged.
    """
    if parts and _beside(parts, _CLASSIFIER) is not None:
        note = f"{_CLASSIFIER}, the classifier of SetFit, is not read: stages return what it takes"
        source = replace(source, notes=(*source.notes, note))
    behind = [part for part in parts[1:] if part.kind != "Dropout"]
    pooling = _pooling(behind[0]) if behind else None
    known = all(part.kind in _BUILDERS and _is_plain(_settings(part.folder)) for part in behind[1:])
    if not known or pooling is None or set(source.kwargs) - _TAKEN:
        named = " and ".join(part.kind for part in behind)
        note = f"{PARTS_FILE} has {named} behind the transformer: stages are the transformer alone"
        return replace(source, notes=(*source.notes, note) if behind else source.notes)
    settings = _read(file) if (file := _beside(parts, _LIBRARY)) is not None else {}
    dtype = next(source.model.parameters()).dtype
    with parameters_on_meta():
        built = {part.folder.name: _BUILDERS[part.kind](_settings(part.folder)).to(dtype) for part in behind[1:]}
    if width := settings.get("truncate_dim"):
        built["truncate"] = SentenceCut(width)
    model = SentenceEncoder(source.model, pooling, built).eval()
    weights = source.weights
    if isinstance(weights, Checkpoint):
        own = dict(_tensors(weights, behind[1:], built))
        weights = Checkpoint(weights.path, own, weights.notes, weights.tables)
    notes = (*source.notes, *_notes_on_use(settings, _settings(behind[0].folder)))
    return replace(source, model=model, weights=weights, library=None, notes=notes)


def _notes_on_use(settings: Mapping[str, Any], pooling: Mapping[str, Any]) -> Iterator[str]:
    """Notes on what the library does around its modules."""
    if width := settings.get("truncate_dim"):
        yield f"embeddings are cut to their first {width} numbers, as truncate_dim says"
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    default = settings.get("default_prompt_name")
    named = [f"{name} {text!r}" + " (by default)" * (name == default) for name, text in prompts.items()]
    if named:
        yield f"the library puts prompts before texts, which stages do not: {', '.join(named)}"
    if pooling.get("include_prompt") is False:
        yield "tokens of a prompt are pooled, too, which the library leaves out (include_prompt false)"


def _beside(parts: Sequence[SentencePart], name: str) -> Path | None:
    """A file of the whole folder, which is that of the first module or the one above it."""
    files = (folder / name for folder in (parts[0].folder, parts[0].folder.parent))
    return next((file for file in files if file.is_file()), None)


_TAKEN = {"input_ids", "attention_mask", "token_type_ids"}


def _is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether a module takes the embedding, and returns another."""
    names = {settings.get(f"module_{end}_name") or "sentence_embedding" for end in ("input", "output")}
    return names == {"sentence_embedding"} and not settings.get("use_residual")


def _tensors(
    transformer: Checkpoint, behind: Sequence[SentencePart], built: Mapping[str, nn.Module]
) -> Iterator[tuple[str, Tensorlike]]:
    """The tensors of all modules by their names in a `SentenceEncoder`."""
    for name, tensor in transformer.tensors.items():
        yield f"transformer.{name}", tensor
    for part in behind:
        if stored_names(built[part.folder.name]):
            found = Checkpoint.open(part.folder).for_model(built[part.folder.name])
            yield from ((f"behind.{part.folder.name}.{name}", tensor) for name, tensor in found.tensors.items())


def _pooling(part: SentencePart) -> nn.Module | None:
    """The module that makes a vector of a text's states; None for one that is not known."""
    if part.kind == "SpladePooling":
        settings = _settings(part.folder)
        kinds = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
        known = kinds[0] in ("max", "sum") and kinds[1] in ("relu", "log1p_relu")
        return SpladePooling(sums=kinds[0] == "sum", damped=kinds[1] == "log1p_relu") if known else None
    ways = _ways(part.folder) if part.kind == "Pooling" else []
    return SentencePooling(ways) if ways and set(ways) <= POOLING_WAYS.keys() else None


def _ways(folder: Path) -> list[str]:
    """The ways in which the settings say that states are pooled."""
    settings = _settings(folder)
    if named := settings.get("pooling_mode"):
        return [named] if isinstance(named, str) else list(named)
    on = [name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True]
    return [way for way in POOLING_WAYS if way in on or f"{way}_tokens" in on or f"{way}_token" in on]


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return _read(file) if file.is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    found = json_file(file)
    if not isinstance(found, dict):
        raise SourceError(f"{file} holds a {type(found).__name__}, not the settings of a module")
    return found


def _dense(settings: Mapping[str, Any]) -> nn.Module:
    """The module of a Dense part.  Raises SourceError for an activation that torch does not have."""
    try:
        linear = nn.Linear(settings["in_features"], settings["out_features"], bias=settings.get("bias", True))
    except (KeyError, TypeError) as e:
        raise SourceError(f"a Dense module has no sizes: {e}") from e
    named = str(settings.get("activation_function") or "Identity").rpartition(".")[2]
    activation = getattr(nn, named, None)
    if not isinstance(activation, type) or not issubclass(activation, nn.Module):
        raise SourceError(f"a Dense module has the activation {named}, which torch does not have")
    return SentenceDense(linear, activation())


def _layer_norm(settings: Mapping[str, Any]) -> nn.Module:
    """The module of a LayerNorm part.  Raises SourceError where its settings have no width."""
    if not isinstance(width := settings.get("dimension"), int):
        raise SourceError("a LayerNorm module has no dimension")
    return SentenceLayerNorm(nn.LayerNorm(width))


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": lambda _: SentenceNorm(),
}
