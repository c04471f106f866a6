"""Adapters as peft saves them, merged into the tensors of a checkpoint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.checkpoint.adapters.kinds.known import INDICES, KINDS, PARTS, SHARED
from ir.checkpoint.adapters.kinds.lora import TOKENS
from ir.checkpoint.adapters.layer import LayerAdapter, LayerChange, scale_of
from ir.checkpoint.adapters.low_rank import Adapted, AdaptedExperts
from ir.checkpoint.adapters.retrained import Retrained
from ir.checkpoint.adapters.settings import (
    NO_WEIGHTS,
    SETTINGS,
    names_end,
    read_settings,
    require_merged,
    require_names,
)
from ir.checkpoint.adapters.targets import unchanged_targets
from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.mosaic import Mosaic
from ir.checkpoint.names import own_tensors, renamed_for, unwrapped
from ir.checkpoint.tensors import Tensorlike
from ir.checkpoint.ties import alike_names
from ir.errors import SourceError
from ir.text.names import listed_names

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_NAMED = "|".join(re.escape(part).replace("_", "(_embedding)?_", 1) for part in sorted(PARTS))
_PART = re.compile(
    rf"(?P<path>.+?)(?P<around>(\.base_layer)*)\.(token_adapter\.)?(?P<part>{_NAMED})(\.default)?(?P<nth>\.\d+)?"
    r"(\.weight|(?P<bias>\.bias))?"
)
_SHARED = re.compile(rf"base_model\.({'|'.join(sorted(SHARED))})(\.default)?")
_REPLACED = ".original_module."  # in names of what the adapter has another one in the place of
_SAVED = re.compile(r"\.(modules_to_save(\.default)?|(token_adapter\.)?base_layer|ln_tuning_layers(\.default)?)\.")


@dataclass(frozen=True)
class LayerParts:
    """The tensors of an adapter for a layer, by the names of their parts."""

    path: str
    around: int  # number of the layers of peft around it
    embedding: bool
    parts: dict[str, Tensorlike]

    @property
    def first(self) -> Tensorlike:
        return next(iter(self.parts.values()))


@dataclass(frozen=True)
class Adapter:
    """The tensors of an adapter and its settings."""

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensorlike]
    kept: bool = False  # whether it stays beside the weights
    done: tuple[str, ...] = ()  # the names in the checkpoint of what is merged already

    @classmethod
    def open(cls, folder: Path, kept: bool = False) -> Adapter:
        """Open a folder that peft saved.  Raises SourceError for what is missing, and for kinds that are not merged."""
        settings = read_settings(folder)
        require_merged(folder, settings, KINDS)
        require_names(folder, settings)
        file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if file is None:
            raise SourceError(f"{folder} has {SETTINGS} and no {' or '.join(_FILES)}; fetch it")
        tables = [table for table in read_checkpoint(file).values() if table]
        if not tables:
            raise SourceError(f"{file} holds no tensors; fetch it again, or save the adapter with save_pretrained")
        if len(tables) > 1:
            raise SourceError(
                f"{file} has {len(tables)} dicts of tensors in place of an adapter's one; save it with save_pretrained"
            )
        named = {name.removeprefix("base_model.model."): t for name, t in tables[0].items()}
        return cls(folder, settings, named, kept)

    def merged(self, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> dict[str, Tensorlike]:
        """The tensors of a model, by its own names, with the adapter merged into them.

        Raises SourceError where the adapter has tensors that the model has no place for.
        """
        own = own_tensors(model)
        layers, whole = self.by_layer(own)
        self._check_sizes(own, whole)
        base = {**tensors, **whole}
        merged = dict(base)
        done = set[str]()  # of weights that have several names, each of which peft then adapts alike
        for name, change in self._changes(model, layers, own, base):
            stored = [n for n in alike_names(name, own, base) if n in base] if name in own else []
            if not stored:
                raise SourceError(f"{self.path} adapts {name}, which the model has no weight for: {NO_WEIGHTS}")
            if not self._ties(name, layers):
                apart = [n for n in alike_names(name, own, base) if n != name]  # keep the base's values
                merged |= {n: merged.get(n, base[stored[0]]) for n in apart}
                merged[name] = change(merged.get(name, base[stored[0]]))
            elif done.isdisjoint(stored):
                merged |= dict.fromkeys(stored, change(merged[stored[0]]))
                done.update(stored)
        return merged

    def _ties(self, name: str, layers: Iterable[LayerParts]) -> bool:
        """Whether what is trained for a weight is trained for its other names, too, as single tokens always are."""
        by_path = {layer.path: layer for layer in layers}
        of_tokens = TOKENS in by_path[name.rpartition(".")[0]].parts
        return of_tokens or bool(self.settings.get("ensure_weight_tying"))

    def _check_sizes(self, own: Mapping[str, torch.Tensor], whole: Mapping[str, Tensorlike]) -> None:
        """Raise SourceError for a tensor that replaces one of another size, as after tokens were added."""
        for name, tensor in whole.items():
            wanted, found = tuple(own[name].shape), tuple(tensor.shape)
            if found == wanted:
                continue
            grown = len(found) == 2 and found[1:] == wanted[1:]
            raise SourceError(
                f"{self.path} replaces {name} of {list(wanted)} by one of {list(found)}: "
                + (
                    "give the base the size that it was trained with, as "
                    f"model.resize_token_embeddings({found[0]}) does, and save it"
                    if grown
                    else "it is the adapter of another model"
                )
            )

    def shared(self, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> str:
        """A note on the weights that the model has under other names, too; empty where no such one is adapted.

        `tensors` are those that the adapter is merged into.
        """
        own = own_tensors(model)
        layers, whole = self.by_layer(own)
        both = dict[str, list[str]]()
        for name, _ in self._changes(model, layers, own, {}):
            if not self._ties(name, layers):
                both[name] = alike_names(name, own, {**tensors, **whole})[1:]
        tied = [f"{name}, which is {others[0]}, too" for name, others in both.items() if others]
        if not tied:
            return ""
        return f"{self} was trained on {'; '.join(tied)}, and not changed there: they are two weights from here on"

    def lacking(self, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> str:
        """A note on the layers that the settings name and the adapter has no tensors for; empty where there are none.

        peft warns of these, and leaves them as the base has them.  `tensors` are those that the adapter is merged into,
        some of which may be changed already, as it had the checkpoint's names for them.
        """
        own = own_tensors(model)
        layers, whole = self.by_layer(own)
        names = [name for name, _ in self._changes(model, layers, own, {})]
        done = [name for name, tensor in tensors.items() if _is_changed(tensor)] if self.done else []
        if not (left := unchanged_targets(model, self.settings, {*names, *whole, *done})):
            return ""
        return f"{self} has no tensors for {listed_names(left, 3)}, which its settings name: they are as in the base"

    def by_layer(
        self, own: Iterable[str], lacking: str = "the model lacks; is it its base?"
    ) -> tuple[list[LayerParts], dict[str, Tensorlike]]:
        """The tensors for each adapted layer, and those that replace the model's, by its names for them.

        Raises SourceError for others, with the words `lacking`.
        """
        layers, whole = self._sorted(own)
        known = _known(own, layers, whole)
        if lost := [name for name in (*(layer.path for layer in layers), *whole) if name not in known]:
            raise SourceError(f"{self.path} adapts {', '.join(lost[:3])}, which {lacking}")
        return [replace(layer, path=known[layer.path]) for layer in layers], {known[n]: t for n, t in whole.items()}

    def merged_as_stored(
        self, own: Iterable[str], table: Mapping[str, Tensorlike]
    ) -> tuple[Adapter, dict[str, Tensorlike]]:
        """The rest of the adapter, for a model with tensors of the names `own`, and the changed tensors of `table`.

        Changed are those for which the adapter has the names of the checkpoint, as for single experts that the model
        has in one tensor.
        """
        layers, whole = self._sorted(own)
        known = _known(own, layers, whole)
        foreign = {f"{layer.path}.weight": layer for layer in layers if layer.path not in known}
        others = {name: tensor for name, tensor in whole.items() if name not in known}
        stored = renamed_for(table, {name: layer.first for name, layer in foreign.items()} | others)
        changed = {stored[name]: tensor for name, tensor in others.items() if stored.get(name) in table}
        done = {id(tensor) for tensor in changed.values()}
        for name, layer in foreign.items():
            if made := self._changed_as_stored(layer, stored.get(name, ""), table):
                changed |= made
                done |= {id(tensor) for tensor in layer.parts.values()}
        left = {name: tensor for name, tensor in self.tensors.items() if id(tensor) not in done}
        return replace(self, tensors=left, done=(*self.done, *changed)), changed

    def require_taken(self, left: Iterable[str]) -> None:
        """Raise SourceError where a tensor of the checkpoint that is changed is `left`, as the model lacks it."""
        if lost := [name for name in left if name in self.done]:
            raise SourceError(f"{self.path} adapts {', '.join(lost[:3])}, which the model lacks; is it its base?")

    def _changed_as_stored(
        self, layer: LayerParts, name: str, table: Mapping[str, Tensorlike]
    ) -> dict[str, Tensorlike]:
        """The tensors of a layer that the model does not have, by their names in `table`; none where it lacks them."""
        if name not in table or len(table[name].shape) != 2 or self.settings.get("fan_in_fan_out"):
            return {}
        path, (rows, columns) = name.removesuffix(".weight"), table[name].shape
        kind = nn.Embedding if layer.embedding else nn.Linear
        module = kind(columns, rows, device="meta")
        of = LayerAdapter(self.path, self.settings, path, module, layer.parts, base=table)
        changes = {f"{path}.{attribute}": change for attribute, change in KINDS[self.kind].changes(of)}
        return {name: change(table[name]) for name, change in changes.items()} if changes.keys() <= table.keys() else {}

    def _sorted(self, own: Iterable[str]) -> tuple[list[LayerParts], dict[str, Tensorlike]]:
        """The tensors for each layer, and those that are whole, by the adapter's own names."""
        layers = defaultdict[tuple[str, int], dict[str, Tensorlike]](dict)
        whole, shared, embeddings = dict[str, Tensorlike](), dict[str, Tensorlike](), set[str]()
        for name, tensor in unwrapped(own, self.tensors).items():
            if (found := _SHARED.fullmatch(name)) is not None:
                self._require_floats(name, tensor)
                shared[found[1]] = tensor
            elif (found := _PART.fullmatch(name)) is not None:
                around = found["around"].count(".base_layer")
                part = found["part"].replace("_embedding", "") + (found["nth"] or "") + (found["bias"] or "")
                if part not in INDICES:
                    self._require_floats(name, tensor)
                layers[found["path"], around][part] = tensor
                embeddings |= {found["path"]} if "_embedding" in found["part"] else set()
            elif _REPLACED not in name:
                whole[_SAVED.sub(".", name)] = tensor
        if shared and not layers:
            raise SourceError(
                f"{self.path} has {' and '.join(sorted(shared))} for all layers, and nothing that says which layers: "
                "save the adapter again, with save_indices=True where its settings have that"
            )
        found = layers.items()
        return [LayerParts(path, n, path in embeddings, {**parts, **shared}) for (path, n), parts in found], whole

    def _require_floats(self, name: str, tensor: Tensorlike) -> None:
        if not tensor.dtype.is_floating_point:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SourceError(f"{self.path} has {name} in {kind}, and adapters are trained in floats; save it again")

    def _changes(
        self,
        model: nn.Module,
        layers: Iterable[LayerParts],
        own: Mapping[str, torch.Tensor],
        base: Mapping[str, Tensorlike],
    ) -> Iterator[tuple[str, LayerChange]]:
        """The change of each adapted tensor, by its name, of those in `base`.

        Raises SourceError where the layer is not of its kind.
        """
        for layer in layers:
            attribute = self._attribute(layer, own)
            module = model.get_submodule(layer.path)
            of = LayerAdapter(self.path, self.settings, layer.path, module, layer.parts, attribute, base)
            for name, change in KINDS[self.kind].changes(of):
                yield f"{layer.path}.{name}", change

    def _attribute(self, layer: LayerParts, own: Iterable[str]) -> str:
        """The parameter that a layer's tensors are for.

        Those that `target_parameters` name are adapted one around the other, in the layer's order.
        """
        inside = (name for name in own if name.rpartition(".")[0] == layer.path)
        named = self.settings.get("target_parameters") or ()
        targets = [name.rpartition(".")[2] for name in inside if names_end(named, name)]
        return targets[-1 - layer.around] if layer.around < len(targets) else "weight"

    def scale(self, path: str) -> float:
        """The factor of a module's product.  Raises SourceError where the settings do not give one."""
        return scale_of(self.path, self.settings, path)

    @property
    def kind(self) -> str:
        return str(self.settings["peft_type"])

    def __str__(self) -> str:
        return f"the {self.settings.get('peft_type')} adapter in {self.path}"


def _is_changed(tensor: Tensorlike) -> bool:
    """Whether an adapter has changed a tensor, or a part of one that is joined."""
    if isinstance(tensor, Mosaic):
        return any(_is_changed(tile.source) for tile in tensor.tiles)
    return isinstance(tensor, Adapted | AdaptedExperts | Retrained)


def _known(own: Iterable[str], layers: Iterable[LayerParts], whole: Mapping[str, Tensorlike]) -> dict[str, str]:
    """By the adapter's names of layers and of whole tensors, the model's, for those that it has."""
    holders = {name.rpartition(".")[0] for name in own}
    paths = {layer.path: layer.first for layer in layers}
    renamed = renamed_for({*own, *holders}, {**paths, **whole})
    return {name: new for name, new in renamed.items() if new in (holders if name in paths else set(own))}
