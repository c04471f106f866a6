"""Adapters that were added to an artifact: behind those that its stages hold, in the order of the manifest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from runtime.manifest.manifest import Manifest, added_adapter

_STACKS = (".lora_down", ".lora_up", ".lora_scale")
"""The ends of the names of parameters whose first dimension is that of the adapters, the first of which is none."""


def added_files(folder: Path, manifest: Manifest) -> tuple[Path, ...]:
    """The files of the adapters that were added, in their order."""
    return tuple(folder / added_adapter(name) for name in manifest.added_adapters)


def with_added(module: nn.Module, files: Sequence[Path], held: Collection[str]) -> None:
    """Add the adapters of `files` to the parameters of a module, but for those of the names that are `held`."""
    stacks = {name: p for name, p in module.named_parameters() if name.endswith(_STACKS) and name not in held}
    for file in files:
        with safe_open(file, "pt") as stored:
            there = set(stored.keys())
            for name, stack in stacks.items():
                one = stored.get_tensor(name) if name in there else torch.zeros(stack.shape[1:])
                stacks[name] = nn.Parameter(torch.cat([stack.detach(), one[None].to(stack)]), requires_grad=False)
    for name, stack in stacks.items():
        path, _, attribute = name.rpartition(".")
        module.get_submodule(path).register_parameter(attribute, stack)
