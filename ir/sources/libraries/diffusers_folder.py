"""Folders of diffusers: one model of a pipeline, config.json with its class, and weights."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ir.sources.folders import CONFIG
from ir.sources.libraries.diffusers_calls import CALLS
from ir.sources.libraries.diffusers_derived import derived_call
from ir.sources.libraries.known_folder import LibraryFolder, settings_of


def diffusers_folder(path: Path) -> LibraryFolder | None:
    """The folder, if it is one of diffusers with a model."""
    settings = settings_of(path / CONFIG)
    name = str(settings.get("_class_name", ""))
    if "_diffusers_version" not in settings or not _is_model(name):
        return None

    def make(diffusers: Any) -> nn.Module:
        cls = getattr(diffusers, name)
        return _taking_old_names(cls.from_config(cls.load_config(path)))

    return LibraryFolder(
        path,
        "diffusers",
        "diffusers",
        make=make,
        call=lambda model: CALLS[name](_sized(model.config, path)) if name in CALLS else derived_call(model),
        load=lambda diffusers: getattr(diffusers, name).from_pretrained(path, local_files_only=True),
        weights=path,
    )


def _is_model(name: str) -> bool:
    """Whether a class of diffusers is one of a model, as schedules are not.

    Of models whose calls are known it is told without the library.
    """
    if name in CALLS:
        return True
    try:
        return issubclass(getattr(import_module("diffusers"), name), nn.Module)
    except (ImportError, AttributeError, TypeError):
        return False


def _sized(config: Any, path: Path) -> Any:
    """The configuration with the size of the latents of its pipeline's UNet, where it names none, as a ControlNet's."""
    size = settings_of(path.parent / "unet" / CONFIG).get("sample_size")
    return config if size is None or "sample_size" in config else type(config)(**config, sample_size=size)


def _taking_old_names(model: Any) -> nn.Module:
    """The model, which takes weights of attention under the names that the library once gave them, as with itself."""

    def rename(_: nn.Module, state: dict[str, Any], *rest: Any) -> None:
        model._fix_state_dict_keys_on_load(state)

    if hasattr(model, "_fix_state_dict_keys_on_load"):
        model.register_load_state_dict_pre_hook(rename)
    return model
