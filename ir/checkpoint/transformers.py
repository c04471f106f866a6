"""A checkpoint's tensors under the names of the module: the only file that knows how transformers loads one."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch
from torch import nn

from ir.checkpoint.names import renamed_for, rival_prefixes, stored_names
from ir.checkpoint.own_loading import has_own_loading, loaded_by_itself
from ir.checkpoint.rearranged import Rearranged
from ir.checkpoint.tensors import Held, Tensorlike
from ir.errors import SourceError


@dataclass(frozen=True)
class Named:
    """Tensors by the module's names, and the names in the checkpoint that have no place in it."""

    tensors: Mapping[str, Tensorlike]
    unexpected: tuple[str, ...]


def named_for(model: nn.Module, tensors: Mapping[str, Tensorlike], origin: str) -> Named:
    """The tensors under their names in the module.

    Raises SourceError where transformers has another shape for a tensor, or fails to convert it.
    """
    if is_pretrained(model):
        return _as_transformers_does(model, tensors, origin)
    return _by_prefix(model, tensors, origin)


def is_pretrained(model: nn.Module) -> bool:
    """Whether transformers has rules for the model's checkpoints."""
    base = getattr(sys.modules.get("transformers"), "PreTrainedModel", None)
    return base is not None and isinstance(model, base)


def _by_prefix(model: nn.Module, tensors: Mapping[str, Tensorlike], origin: str) -> Named:
    """The names under which the model's state dict is stored, with or without a prefix, as its own code takes them.

    Raises SourceError where weights under several prefixes fit.
    """
    own = stored_names(model)
    best = _renamed(own, tensors, origin)
    if has_own_loading(model):
        if 2 * sum(new in own for new in best.values()) < len(tensors):  # a few fit by chance: its code renames them
            best = {name: name for name in tensors}
        found, left = loaded_by_itself(model, {new: tensors[old] for old, new in best.items()}, origin)
        return Named(found, tuple(old for old in tensors if best.get(old) in left or old not in best))
    found = {own[new]: tensors[old] for old, new in best.items() if new in own}
    return Named(found, tuple(old for old in tensors if best.get(old) not in own))


def _renamed(own: Collection[str], tensors: Mapping[str, Tensorlike], origin: str) -> dict[str, str]:
    """The names in the checkpoint, as `renamed_for` has them.  Raises SourceError where several prefixes fit."""
    if rivals := rival_prefixes(own, tensors):
        listed = " and ".join(f"`{prefix}`" for prefix in rivals)
        raise SourceError(f"{origin} has weights for the model under {listed}: say --weights-prefix {rivals[0]}, or so")
    return renamed_for(own, tensors)


def _without_prefix(model: Any, tensors: Mapping[str, Tensorlike], origin: str) -> Mapping[str, Tensorlike]:
    """The tensors without a prefix that transformers does not know, as that of a module around the model."""
    own = stored_names(model)
    best = _renamed(own, tensors, origin)
    pairs = ((old, new) for old, new in best.items() if new in own)
    old, new = next(pairs, ("", ""))
    if old == new or not old.endswith(new) or old == f"{model.base_model_prefix}.{new}":
        return tensors
    return {best.get(name, name): tensor for name, tensor in tensors.items()}


def _as_transformers_does(model: Any, tensors: Mapping[str, Tensorlike], origin: str) -> Named:
    """The names that from_pretrained gives, which is run on tensors without data."""
    tensors = _without_prefix(model, tensors, origin)
    stand_ins = {name: Rearranged.standing_for(t) for name, t in tensors.items()}
    try:
        with silenced():
            loaded, report = _loader(type(model)).from_pretrained(
                None,
                config=model.config,
                state_dict=stand_ins,
                dtype=model.dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as e:
        raise SourceError(f"transformers cannot load {origin} into {type(model).__name__}: {_why(e)}") from e
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise SourceError(
            f"{name} is {list(found)} in {origin} and {list(wanted)} in the model; is config.json its own?"
        )
    _take_tables(model, loaded)
    held = loaded.state_dict(keep_vars=True)
    found = {name: _source(t) for name, t in held.items() if name not in report["missing_keys"]}
    return Named(found, tuple(sorted(report["unexpected_keys"])))


def _take_tables(model: nn.Module, loaded: nn.Module) -> None:
    """Give a model the buffers that no checkpoint has with the values that they have where transformers loads one.

    It computes such tables, as of positions, in another dtype than where a model is made: CodeGen's in float32.
    """
    if not type(model).__module__.startswith("transformers.models."):  # whose own code need not make them anew
        return
    stored, own = loaded.state_dict(keep_vars=True).keys(), dict(model.named_buffers())
    for name, made in loaded.named_buffers():
        if name in own and name not in stored and not isinstance(made, Rearranged) and made.device.type == "cpu":
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, made)


def _why(e: Exception) -> str:
    """The text of an error; where weights could not be converted, the first one and why, which only a report says."""
    for frame, _ in walk_tb(e.__traceback__):
        for name, text in getattr(frame.f_locals.get("loading_info"), "conversion_errors", {}).items():
            return f"{name}: {text.splitlines()[-1]}"
    return str(e)


def _source(tensor: torch.Tensor) -> Tensorlike:
    return tensor.source if isinstance(tensor, Rearranged) else Held(tensor)


def _loader(cls: type) -> Any:
    """The class without initial values for parameters that are missing by mistake, which may be all of them."""

    def initialize_weights(self: Any) -> None:
        rightly = re.compile("|".join(self._keys_to_ignore_on_load_missing or ["$^"]))
        for name, parameter in self.named_parameters():
            if not rightly.search(name):
                parameter._is_hf_initialized = True
        cls.initialize_weights(self)  # type: ignore[attr-defined]

    return type(cls.__name__, (cls,), {"initialize_weights": initialize_weights, "__module__": cls.__module__})


@contextmanager
def silenced() -> Iterator[None]:
    """Silence transformers' progress bar and report: our own messages say the same."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)  # critical alone
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
