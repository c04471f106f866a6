"""The settings of an adapter, and the kinds of adapters that are not merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ir.checkpoint.files import whose_names
from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.formats.recognized import other_adapter
from ir.checkpoint.layouts import foreign_layout
from ir.errors import SourceError

SETTINGS = "adapter_config.json"

NO_WEIGHTS = "no weights hold it; give a model file that makes peft.PeftModel.from_pretrained(model, folder)"

BY_HAND = (
    "merge it into the weights first: "
    "peft.PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(merged)"
)

_OF_INPUTS = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT", "CARTRIDGE"),
    *("LILY", "POLY", "SHADOW", "XLORA"),
)
"""Kinds that change what layers are given, or weights by it, and so none for all inputs."""

_NAMES = ("target_modules", "exclude_modules", "target_parameters", "feedforward_modules", "modules_to_save")
"""The settings that name modules or parameters: by a list, or one regular expression."""

_NOT_DONE = {
    "layer_replication": "LoRA over repeated layers",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "LoRA of Megatron's layers",
}
"""The settings of LoRA whose weights are not read, by what they turn on."""

_CHANGING_THE_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Kinds of `init_lora_weights` with which peft subtracts the first product from the base's weights, at each loading."""


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the adapter in a folder.  Raises SourceError where they cannot be read."""
    file = folder / SETTINGS
    if folder.is_file():
        raise SourceError(f"{folder} is a file; give the folder that an adapter was saved to, {folder.parent}")
    if not file.is_file() and (inner := sorted(folder.glob(f"*/{SETTINGS}"))):
        raise SourceError(f"{folder} has adapters in folders of their own; name one, such as {inner[0].parent}")
    if not file.is_file() and (other := foreign_layout(folder) or _of_names(folder)):
        raise SourceError(f"{folder} has no {SETTINGS}: it {other}")
    try:
        return dict(parsed_json(file.read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise SourceError(f"cannot read {file}: {e}; an adapter's folder has it, as peft saves it") from e


def _of_names(folder: Path) -> str:
    return f"has weights, and {whose}" if (whose := whose_names(folder)) else ""


def require_merged(folder: Path, settings: Mapping[str, Any], kinds: Iterable[str]) -> None:
    """Raise SourceError for an adapter that is of none of the kinds, or has settings whose weights are not read."""
    if other := other_adapter(settings):
        raise SourceError(f"{folder} has {other.format(folder)}")
    if fault := _not_done(settings, kinds):
        how = NO_WEIGHTS if fault in _OF_INPUTS else BY_HAND
        raise SourceError(f"{folder} has a {fault} adapter, which is not merged: {how}")


def require_names(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise SourceError where settings that name modules hold neither a list of names nor a regular expression."""
    for key in _NAMES:
        if fault := _no_names(settings.get(key)):
            raise SourceError(f"{folder / SETTINGS} names no modules by {key}: {fault}; fetch it, or write it anew")


def _no_names(named: Any) -> str:
    """A fault of the value of a setting; empty where it names modules, or none."""
    if isinstance(named, str):
        try:
            re.compile(named)
        except re.error as e:
            return f"{named!r} is no regular expression ({e})"
        return ""
    good = named is None or (isinstance(named, list) and all(isinstance(name, str) for name in named))
    return "" if good else f"{named!r} is no list of names"


def _not_done(settings: Mapping[str, Any], kinds: Iterable[str]) -> str:
    """The name of the kind of adapter, if it is not one that is merged."""
    kind = str(settings.get("peft_type", "PEFT"))
    if kind not in kinds:
        return kind
    if kind != "LORA":
        return ""
    if (begun := str(settings.get("init_lora_weights")).lower()).startswith(_CHANGING_THE_BASE):
        return f"LoRA ({begun}: its first values are taken out of the base's weights)"
    return next((name for key, name in _NOT_DONE.items() if settings.get(key)), "")


def of_pattern(pattern: Mapping[str, Any] | None, path: str, default: Any) -> Any:
    """The value of the first key that is the module's path, or the end of it, as a regular expression."""
    found = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", path))
    return next(found, default)


def names_end(names: Any, path: str) -> bool:
    """Whether a path is one of the names or ends with one; a single text is a regular expression of the path."""
    if isinstance(names, str):
        return re.fullmatch(names, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names or ())
