"""Folders of timm: config.json with an architecture, and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ir.process.patching import PATCHING
from ir.sources.folders import CONFIG
from ir.sources.libraries.known_folder import LibraryCall, LibraryFolder, settings_of

_HELD = {"source": "", "file": None}  # by which settings have the library load the state dict beside them
_OF_SETTINGS = ("pretrained_cfg", "input_size")  # the second in files of before timm 0.9

_State = dict[str, Any]
_Load = tuple[nn.Module, Callable[[_State], _State]]  # a model, and what is loaded into it of a state dict


def timm_folder(path: Path) -> LibraryFolder | None:
    """The folder, if it is one of timm."""
    settings = settings_of(path / CONFIG)
    if "architecture" not in settings or not any(name in settings for name in _OF_SETTINGS):
        return None
    name = f"local-dir:{path.resolve()}"
    return LibraryFolder(
        path,
        "timm",
        "timm",
        make=lambda timm: _made(timm, name),
        call=_call,
        load=lambda timm: timm.create_model(name, pretrained=True),
        weights=path,
    )


def _made(timm: Any, name: str) -> nn.Module:
    """The model, which takes weights as the library itself does: under other names, without an unused class."""
    builder: Any = getattr(getattr(timm, "models", None), "_builder", None)
    if not hasattr(builder, "load_pretrained"):  # in a version that has it elsewhere
        return timm.create_model(name, pretrained=False)
    load, loads = builder.load_pretrained, list[_Load]()

    def note(model: nn.Module, pretrained_cfg: Any = None, **rest: Any) -> None:
        """Load nothing, but keep in mind what the library would make of a state dict."""
        settings = {**pretrained_cfg, **_HELD}
        loads.append((model, lambda state: _changed(load, model, {**settings, "state_dict": state}, rest)))

    with PATCHING, patch.object(builder, "load_pretrained", note):
        model = timm.create_model(name, pretrained=True)
    for inner, changed in loads:
        _take(model, inner, changed)
    return model


def _changed(load: Callable[..., None], model: nn.Module, settings: Any, rest: Any) -> _State:
    """The state dict that the library's function loads into a model."""
    caught = _State()

    def catch(state: _State, **_: Any) -> Any:
        caught.update(state)
        return SimpleNamespace(missing_keys=[], unexpected_keys=[])

    with patch.object(model, "load_state_dict", catch):
        load(model, pretrained_cfg=settings, **rest)
    return caught


def _take(model: nn.Module, inner: nn.Module, changed: Callable[[_State], _State]) -> None:
    """Have `model` take a state dict as the library loads it into `inner`, of whose modules `model` consists."""

    def hook(_: nn.Module, state: _State, *rest: Any) -> None:
        own = model.state_dict()
        if all(name in state and state[name].shape == tensor.shape for name, tensor in own.items()):
            return
        names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
        within = inner.state_dict(keep_vars=True)
        renamed = {name: names[id(tensor)] for name, tensor in within.items() if id(tensor) in names}
        taken = changed(dict(state))
        state.clear()
        state.update({renamed.get(name, name): tensor for name, tensor in taken.items()})

    model.register_load_state_dict_pre_hook(hook)


def _call(model: Any) -> LibraryCall:
    size = tuple(model.pretrained_cfg.get("input_size") or (3, 224, 224))
    return LibraryCall({"x": torch.randn(2, *size)}, {"x": {0: "batch"}})
