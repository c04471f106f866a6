"""The layers that the settings of an adapter name, as peft finds them in a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from ir.checkpoint.adapters.settings import names_end


def unchanged_targets(model: nn.Module, settings: Mapping[str, Any], changed: Collection[str]) -> list[str]:
    """The paths of layers, or names of parameters, that settings name and of which no tensor is among the `changed`.

    `changed`: names of the model's tensors.
    """
    touched = {name.rpartition(".")[0] for name in changed}
    layers = [path for path in _targets(model, settings) if path not in touched]
    named = settings.get("target_parameters")
    own = nn.Module.named_parameters(model, remove_duplicate=False)
    parameters = [name for name, _ in own if names_end(named, name) and name not in changed]
    return [*layers, *parameters, *_unsaved(model, settings, changed)]


def _targets(model: nn.Module, settings: Mapping[str, Any]) -> Iterator[str]:
    """The paths of layers that an adapter of these settings changes."""
    named, saved = settings.get("target_modules"), settings.get("modules_to_save") or ()
    for path, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is None or not names_end(named, path):
            continue
        left_out = names_end(settings.get("exclude_modules"), path) or any(
            re.match(rf"(^|.*\.){name}($|\..*)", path) for name in saved
        )
        if not left_out and (isinstance(named, str) or path in (named or ()) or _is_of_layers(path, settings)):
            yield path


def _is_of_layers(path: str, settings: Mapping[str, Any]) -> bool:
    """Whether a path is in one of the layers whose numbers the settings name, if they do."""
    numbers, patterns = settings.get("layers_to_transform"), settings.get("layers_pattern")
    if numbers is None or numbers == []:
        return True
    kinds = [patterns] if isinstance(patterns, str) else patterns
    starts = [rf"(?:^|.*?\.){kind}" for kind in kinds] if kinds else [r".*?\.[^.]*"]
    found = next(filter(None, (re.match(rf"{start}\.(\d+)\.", path) for start in starts)), None)
    return found is not None and int(found[1]) in (numbers if isinstance(numbers, list) else [numbers])


def _unsaved(model: nn.Module, settings: Mapping[str, Any], changed: Collection[str]) -> Iterator[str]:
    """The paths of modules that the adapter was to have whole."""
    for path, module in model.named_modules():
        inside = {f"{path}.{name}" for name, _ in nn.Module.named_parameters(module, remove_duplicate=False)}
        if inside and names_end(settings.get("modules_to_save"), path) and inside.isdisjoint(changed):
            yield path
