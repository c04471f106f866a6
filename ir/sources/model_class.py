"""The configuration and the class of the model in a folder of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ir.checkpoint.files import is_of_torch
from ir.checkpoint.formats.json_text import json_file
from ir.checkpoint.formats.recognized import other_settings
from ir.checkpoint.layouts import foreign_layout
from ir.checkpoint.transformers import silenced
from ir.errors import SourceError, in_one_line
from ir.sources.folders import CONFIG
from ir.sources.source import Reading

_UNTRUSTED = "the folder has Python code of its own, which is not run unasked: read it, then say --trust-remote-code"


def model_class(path: Path, transformers: Any, reading: Reading) -> tuple[Any, Any, tuple[str, ...]]:
    """The configuration and the class of a folder's model, with notes.  Raises SourceError."""
    plain = _read_config(path)
    _check_code(path, plain, transformers, reading)
    config = _make_config(path, plain, transformers, reading)
    cls, notes = _class_of(path, plain, config, transformers, reading)
    return _of_part(path, config, cls), cls, notes


def _of_part(path: Path, config: Any, cls: Any) -> Any:
    """The configuration, or that of the part of a model that the class is, as the text encoder of a CLIP."""
    own = getattr(cls, "config_class", None)
    if own is None or isinstance(config, own) or not own.__module__.startswith("transformers.models."):
        return config
    with silenced():
        return own.from_pretrained(path, local_files_only=True)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    plain = json_file(file)
    if not isinstance(plain, dict):
        raise SourceError(f"{file} holds a {type(plain).__name__}, not the fields of a configuration")
    if "_diffusers_version" in plain:
        raise SourceError(
            f"{path} is a diffusers checkpoint, whose inputs are not known; give a model file that makes "
            f"`{plain.get('_class_name', 'the model')}.from_config(...)` and names the folder as `checkpoint`"
        )
    return plain


def transformers_for(path: Path) -> Any:
    """The library that reads a folder.  Raises SourceError where it is not installed."""
    try:
        return import_module("transformers")
    except ImportError as e:
        raise SourceError(
            f"{path} is a checkpoint of transformers, which is not installed ({e}); pip install 'stagecut[examples]'"
        ) from e


def _check_code(path: Path, plain: Mapping[str, Any], transformers: Any, reading: Reading) -> None:
    """Raise SourceError for a folder that needs code of its own, unless the user trusts it."""
    kind = plain.get("model_type")
    if (other := other_settings(plain)) and not is_of_torch(path):
        raise SourceError(f"{path} {other}")
    known = isinstance(kind, str) and kind in transformers.CONFIG_MAPPING
    if known or (plain.get("auto_map") and reading.trust_remote_code):
        return
    if plain.get("auto_map"):
        raise SourceError(f"{path} is of no model that transformers has; {_UNTRUSTED}")
    known_to = f"transformers {transformers.__version__}"
    if not kind and (other := foreign_layout(path)):
        raise SourceError(f"{path} {other}")
    what = f"model_type {kind!r}, which {known_to} does not know" if kind else f"no model_type, as {known_to} asks"
    raise SourceError(
        f"{path}/config.json names {what}; a newer version may know it, or give a model file that makes it"
    )


def _make_config(path: Path, plain: Mapping[str, Any], transformers: Any, reading: Reading) -> Any:
    remote = reading.trust_remote_code and bool(plain.get("auto_map"))
    try:
        return transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=remote)
    except Exception as e:
        raise SourceError(f"{path}/config.json is no {plain.get('model_type')} configuration: {in_one_line(e)}") from e


def _class_of(
    path: Path, plain: Mapping[str, Any], config: Any, transformers: Any, reading: Reading
) -> tuple[Any, tuple[str, ...]]:
    """The class that the checkpoint was saved from, and a note where that is a guess."""
    named = next(iter(plain.get("architectures") or ()), None)
    code = {str(ref).rpartition(".")[2]: ref for ref in dict(plain.get("auto_map") or {}).values() if ref}
    if reading.trust_remote_code and (own := _own_code(named, config, plain, transformers)):
        dynamic = import_module("transformers.dynamic_module_utils")
        try:
            return dynamic.get_class_from_dynamic_module(own, path, local_files_only=True), ()
        except Exception as e:
            raise SourceError(f"the code in {path} does not give {own.rpartition('.')[2]}: {in_one_line(e)}") from e
    if named is not None:
        if not hasattr(transformers, named):
            way_out = _UNTRUSTED if named in code else "a newer version may, or give a model file that makes it"
            raise SourceError(
                f"{path}/config.json names the architecture {named}, which transformers {transformers.__version__} "
                f"does not have; {way_out}"
            )
        known = getattr(transformers, named)
        if not (inspect.isclass(known) and issubclass(known, nn.Module)):
            raise SourceError(
                f"{path}/config.json names the architecture {named}, which is no model itself; name the class that the "
                "weights are of, such as LlamaForCausalLM"
            )
        return known, ()
    try:
        cls = transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        raise SourceError(
            f"{path}/config.json names no architectures, and {plain.get('model_type')} has no model without a head; "
            'add "architectures": ["..."] to it'
        ) from None
    cls = _classes(cls)[0]
    return cls, (f"config.json names no architectures: this is {cls.__name__}, the model without a head",)


def _own_code(named: str | None, config: Any, plain: Mapping[str, Any], transformers: Any) -> str:
    """The place in a folder's code of the model's class, as transformers spells it; empty where there is none.

    A class of the library makes way for the one that the folder has for the same auto class, as with transformers.
    """
    codes = {auto: str(ref) for auto, ref in dict(plain.get("auto_map") or {}).items() if isinstance(ref, str)}
    if named is None:
        return codes.get("AutoModel", "")
    for auto, ref in codes.items():
        known = getattr(getattr(transformers, auto, None), "_model_mapping", {})
        if ref.rpartition(".")[2] == named:
            return ref
        if type(config) in known and named in [cls.__name__ for cls in _classes(known[type(config)])]:
            return ref
    return ""


def _classes(found: Any) -> Sequence[type]:
    return found if isinstance(found, tuple) else (found,)
