"""Folders of sentence-transformers: the modules behind the transformer that make an embedding of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.names import stored_names
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError
from ir.sources.meta import parameters_on_meta
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
        listed = parsed_json((path / PARTS_FILE).read_text())
        return tuple(SentencePart(str(e["type"]).rpartition(".")[2], path / str(e["path"])) for e in listed)
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise SourceError(f"cannot read {path / PARTS_FILE}: {e}") from e


class SentencePooling(nn.Module):
    """The states of a text's tokens, [batch, seq, width] -> one vector for each way of pooling, joined."""

    def __init__(self, ways: Sequence[str]) -> None:
        super().__init__()
        self.ways = tuple(ways)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([_WAYS[way](states, mask) for way in self.ways], -1)


class SpladePooling(nn.Module):
    """The logits of a masked language model, [batch, seq, words] -> the weight of each word in a text, not negative."""

    def __init__(self, sums: bool, damped: bool) -> None:
        super().__init__()
        self.sums, self.damped = sums, damped

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        weights = (logits * mask.unsqueeze(-1).to(logits.dtype)).relu().log1p()
        weights = weights.log1p() if self.damped else weights
        return weights.sum(dim=1) if self.sums else weights.max(dim=1).values


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return _picked(states, mask.to(torch.int).argmax(dim=1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    length = states.shape[1]
    values, indices = mask.flip(1).max(1)
    indices = torch.where(values == 0, length - 1, indices)
    return _picked(states * mask.unsqueeze(-1).to(states.dtype), length - indices - 1)


def _picked(states: Tensor, index: Tensor) -> Tensor:
    """The state of one token of each text."""
    return torch.gather(states, 1, index.unsqueeze(-1).unsqueeze(1).expand(-1, 1, states.shape[-1])).squeeze(1)


def _largest(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1).expand_as(states) == 0, float("-inf")).max(dim=1).values


def _sums(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the states of a text's tokens, and the number of these, in float32 or wider."""
    wide = torch.promote_types(states.dtype, torch.float32)
    each = mask.unsqueeze(-1).to(states.dtype)
    return (states * each).sum(dim=1, dtype=wide), torch.clamp(each.sum(dim=1, dtype=wide), min=1e-9)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sums(states, mask)
    return (total / count).to(states.dtype)


def _mean_of_root(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sums(states, mask)
    return (total / torch.sqrt(count)).to(states.dtype)


def _weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean in which the first token of a text counts once, the next one twice, and so on."""
    wide = torch.promote_types(states.dtype, torch.float32)
    places = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=wide)
    each = mask.to(wide) * (places - mask.to(torch.int32).argmax(dim=1, keepdim=True))
    total = (states * each.unsqueeze(-1)).sum(dim=1)
    return (total / torch.clamp(each.sum(dim=1, keepdim=True), min=1e-9)).to(states.dtype)


_WAYS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""The ways of pooling by their names in the settings, in the order in which vectors are joined."""


class SentenceDense(nn.Module):
    """A linear layer with an activation."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.activation = linear, activation

    def forward(self, vector: Tensor) -> Tensor:
        return self.activation(self.linear(vector))


class SentenceNorm(nn.Module):
    """Vectors of length 1."""

    def forward(self, vector: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vector, p=2.0, dim=-1)


class SentenceLayerNorm(nn.Module):
    """A layer norm of the embedding."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, vector: Tensor) -> Tensor:
        return self.norm(vector)


class SentenceCut(nn.Module):
    """The first numbers of the embedding, so many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, vector: Tensor) -> Tensor:
        return vector[..., : self.width]


class SentenceEncoder(nn.Module):
    """A transformer and the modules behind it; returns the embeddings, [batch, width], as `sentence_embedding`."""

    def __init__(self, transformer: nn.Module, pooling: nn.Module, behind: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.transformer, self.pooling, self.behind = transformer, pooling, nn.ModuleDict(behind)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self.transformer(input_ids=input_ids, **{k: v for k, v in given.items() if v is not None})[0]
        vector = self.pooling(states, torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        for module in self.behind.values():
            vector = module(vector)
        return {"sentence_embedding": vector}


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
    return SentencePooling(ways) if ways and set(ways) <= set(_WAYS) else None


def _ways(folder: Path) -> list[str]:
    """The ways in which the settings say that states are pooled."""
    settings = _settings(folder)
    if named := settings.get("pooling_mode"):
        return [named] if isinstance(named, str) else list(named)
    on = [name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True]
    return [way for way in _WAYS if way in on or f"{way}_tokens" in on or f"{way}_token" in on]


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return _read(file) if file.is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(parsed_json(file.read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise SourceError(f"cannot read {file}: {e}") from e


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
