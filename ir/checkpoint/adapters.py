"""LoRA adapters as peft saves them, merged into the tensors of a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.names import own_tensors, renamed_for, unwrapped
from ir.checkpoint.quantized.transposed import lies_across
from ir.checkpoint.tensors import Tensorlike
from ir.checkpoint.ties import alike_names
from ir.errors import SourceError

SETTINGS = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_FACTOR = re.compile(r"(.+)\.lora_(?:embedding_)?([AB])(?:\.default)?(?:\.weight)?")
_WIDENED = (torch.float16, torch.bfloat16)  # peft computes with adapters of these dtypes in float32

_NOT_DONE = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with a bias of its own",
    "target_parameters": "LoRA of parameters that no linear layer holds",
    "layer_replication": "LoRA over repeated layers",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "trainable_token_indices": "LoRA with single trained tokens",
    "megatron_config": "LoRA of Megatron's layers",
}
"""The settings of LoRA whose weights are not read, by what they turn on."""

_CHANGING_THE_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Kinds of `init_lora_weights` with which peft subtracts the first product from the base's weights, at each loading."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """A weight with the product of two small matrices added to it, as peft merges them.

    The product of `up` [rows, rank] and `down` [rank, columns] is multiplied with `scale`; further dimensions, those
    of a convolution, count as columns.  `transposed`: whether the weight is [columns, rows].
    """

    base: Tensorlike
    up: Tensorlike
    down: Tensorlike
    scale: float
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def product_shape(self) -> tuple[int, ...]:
        rows, columns = self.up.shape[0], self.down.shape[1:]
        return (*columns, rows) if self.transposed else (rows, *columns)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        up, down = map(_factor, (self.up, self.down))
        return (self.base.read(dtype) + self._rows(up, down, 0, self.shape[0]).view(self.shape)).to(dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order, with those rows of the product in memory that a block of the weight has a part of."""
        up, down = map(_factor, (self.up, self.down))
        width, done = max(1, prod(self.shape[1:])), 0
        for block in self.base.blocks(dtype):
            first, last = done // width, -(-(done + block.numel()) // width)
            rows = self._rows(up, down, first, last).flatten()
            start = done - first * width
            yield (block + rows[start : start + block.numel()]).to(dtype)
            done += block.numel()

    def _rows(self, up: torch.Tensor, down: torch.Tensor, first: int, last: int) -> torch.Tensor:
        if self.transposed:
            return (up @ down[:, first:last]).t() * self.scale
        return up[first:last] @ down * self.scale


def _factor(tensor: Tensorlike) -> torch.Tensor:
    return tensor.read(torch.float32 if tensor.dtype in _WIDENED else tensor.dtype).flatten(1)


@dataclass(frozen=True)
class Adapter:
    """The tensors of a LoRA adapter and its settings."""

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensorlike]
    kept: bool = False  # whether it stays beside the weights

    @classmethod
    def open(cls, folder: Path, kept: bool = False) -> Adapter:
        """Open a folder that peft saved.  Raises SourceError for what is missing, and for kinds that are not merged."""
        settings = read_settings(folder)
        if fault := _not_done(settings):
            how = _AS_MODEL if fault in _OF_INPUTS else _BY_HAND
            raise SourceError(f"{folder} has a {fault} adapter, which is not merged: {how}")
        file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if file is None:
            raise SourceError(f"{folder} has {SETTINGS} and no {' or '.join(_FILES)}; fetch it")
        table = read_checkpoint(file)[""]
        named = {name.removeprefix("base_model.model."): t for name, t in table.items()}
        return cls(folder, settings, named, kept)

    def merged(self, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> dict[str, Tensorlike]:
        """The tensors of a model, by its own names, with the adapter merged into them.

        Raises SourceError where the adapter has tensors that the model has no place for.
        """
        own = own_tensors(model)
        factors, whole = self.by_target(own)
        base = {**tensors, **whole}
        merged, once = dict(base), bool(self.settings.get("ensure_weight_tying"))
        done = set[str]()  # of weights that have several names, each of which peft then adapts alike
        for name, parts in factors.items():
            stored = [n for n in alike_names(name, own, base) if n in base] if name in own else []
            if not stored or set(parts) != {"A", "B"}:
                raise SourceError(f"{self.path} adapts {name}, which the model has no weight for")
            if not once or done.isdisjoint(stored):
                merged |= dict.fromkeys(stored, self._adapted(model, name, merged[stored[0]], parts))
            done.update(stored)
        return merged

    def shared(self, model: nn.Module, tensors: Mapping[str, Tensorlike]) -> str:
        """A note on the weights that the model has under other names, too; empty where no such one is adapted.

        `tensors` are those that the adapter is merged into.
        """
        own = own_tensors(model)
        factors, whole = self.by_target(own)
        adapted = () if self.settings.get("ensure_weight_tying") else factors
        names = {name: alike_names(name, own, {**tensors, **whole})[1:] for name in adapted}
        tied = [f"{name}, which is {others[0]}, too" for name, others in names.items() if others]
        return f"{self} was trained on {'; '.join(tied)}: both are changed, as peft merges it" if tied else ""

    def by_target(
        self, own: Iterable[str], lacking: str = "the model lacks; is it its base?"
    ) -> tuple[dict[str, dict[str, Tensorlike]], dict[str, Tensorlike]]:
        """The two factors of each adapted weight, and the tensors that replace the model's, by its names for them.

        Raises SourceError for others, with the words `lacking`.
        """
        factors: dict[str, dict[str, Tensorlike]] = {}
        whole = dict[str, Tensorlike]()
        for name, tensor in unwrapped(own, self.tensors).items():
            if (found := _FACTOR.fullmatch(name)) is not None:
                factors.setdefault(f"{found[1]}.weight", {})[found[2]] = tensor
            else:
                whole[_SAVED.sub(".", name)] = tensor
        stems = {name: parts["A"] for name, parts in factors.items() if "A" in parts}
        known = renamed_for(own, {**stems, **whole})
        if lost := [name for name in (*factors, *whole) if known.get(name) not in set(own)]:
            raise SourceError(f"{self.path} adapts {', '.join(lost[:3])}, which {lacking}")
        return {known[n]: parts for n, parts in factors.items()}, {known[n]: t for n, t in whole.items()}

    def _adapted(self, model: nn.Module, name: str, base: Tensorlike, parts: Mapping[str, Tensorlike]) -> Adapted:
        path = name.removesuffix(".weight")
        layer = model.get_submodule(path)
        linear = isinstance(layer, nn.Linear)
        across = lies_across(layer) or (bool(self.settings.get("fan_in_fan_out")) and not linear)
        up, down = parts["B"], parts["A"]
        if getattr(layer, "groups", 1) != 1:
            raise SourceError(f"{self.path} adapts {name}, a convolution in groups, which is not merged: {_AS_MODEL}")
        if up.shape[1:2] != down.shape[:1]:
            raise SourceError(
                f"{self.path} adapts {name} by matrices of {list(up.shape)} and {list(down.shape)}, which have no "
                "product; fetch it again"
            )
        whole = Adapted(base, up, down, self.scale(path), across or isinstance(layer, nn.Embedding))
        if prod(whole.product_shape) != prod(whole.shape) or whole.product_shape[0] != whole.shape[0]:
            raise SourceError(f"{self.path} adapts {name} of {list(whole.product_shape)}; it is {list(whole.shape)}")
        return whole

    def scale(self, path: str) -> float:
        """The factor of a module's product.  Raises SourceError where the settings do not give one."""
        try:
            rank = _of_pattern(self.settings.get("rank_pattern"), path, self.settings.get("r", 8))
            alpha = _of_pattern(self.settings.get("alpha_pattern"), path, self.settings.get("lora_alpha", 8))
            return alpha / sqrt(rank) if self.settings.get("use_rslora") else alpha / rank
        except (TypeError, ValueError, ArithmeticError, AttributeError, re.error) as e:
            raise SourceError(
                f"{self.path / SETTINGS} gives {path} no scale (r, lora_alpha and their patterns): {e}; fetch it"
            ) from e

    def __str__(self) -> str:
        return f"the {self.settings.get('peft_type')} adapter in {self.path}"


_SAVED = re.compile(r"\.(modules_to_save(\.default)?|base_layer)\.")
_BY_HAND = (
    "merge it into the weights first: "
    "peft.PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(merged)"
)

_OF_INPUTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT")
"""Kinds that change what layers are given, and no weights."""

_AS_MODEL = "no weights hold it; give a model file that makes peft.PeftModel.from_pretrained(model, folder)"


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the adapter in a folder.  Raises SourceError where they cannot be read."""
    file = folder / SETTINGS
    if not file.is_file() and (inner := sorted(folder.glob(f"*/{SETTINGS}"))):
        raise SourceError(f"{folder} has adapters in folders of their own; name one, such as {inner[0].parent}")
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise SourceError(f"cannot read {file}: {e}; an adapter's folder has it, as peft saves it") from e


def _not_done(settings: Mapping[str, Any]) -> str:
    """The name of the kind of adapter, if it is not one that is merged."""
    kind = str(settings.get("peft_type", "PEFT"))
    if kind != "LORA":
        return kind
    if (begun := str(settings.get("init_lora_weights")).lower()).startswith(_CHANGING_THE_BASE):
        return f"LoRA ({begun}: its first values are taken out of the base's weights)"
    return next((name for key, name in _NOT_DONE.items() if settings.get(key)), "")


def _of_pattern(pattern: Mapping[str, Any] | None, path: str, default: Any) -> Any:
    """The value of the first key that is the module's path, or the end of it, as a regular expression."""
    found = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", path))
    return next(found, default)
