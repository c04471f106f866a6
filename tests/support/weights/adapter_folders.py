"""Adapters in the form in which peft saves them, and what they change in a model of a few layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.tensors import Tensorlike


class Conv1D(nn.Module):
    """A linear layer whose weight is [inputs, outputs], as transformers has it."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns, rows))


class Experts(nn.Module):
    def __init__(self, across: bool = False) -> None:
        super().__init__()
        shapes = ((2, 4, 6), (2, 3, 4)) if across else ((2, 6, 4), (2, 4, 3))
        self.up, self.down = (nn.Parameter(torch.randn(shape)) for shape in shapes)
        self.is_transposed = across


class LayersToAdapt(nn.Module):
    """Layers of the kinds that adapters change."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.q, self.conv = nn.Linear(4, 6), nn.Conv2d(4, 3, 2)
        self.across = Conv1D(6, 4)
        self.norm = nn.LayerNorm(4)
        self.experts, self.turned = Experts(), Experts(across=True)


def merged(folder: Path, parts: Mapping[str, Tensor], kind: str, **settings: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The tensors that an adapter changes in the model: as they were, and as they are."""
    torch.manual_seed(1)
    model = LayersToAdapt()
    save_file(model.state_dict(), folder / "model.safetensors")
    save_file({f"base_model.{name}": t for name, t in parts.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind, **settings}))
    held = Checkpoint.open(folder)
    found = Adapter.open(folder).merged(model, held.tensors)
    return {name: (held[name], _read(t)) for name, t in found.items() if t is not held.tensors[name]}


def _read(tensor: Tensorlike) -> Tensor:
    whole = tensor.read(torch.float32)
    assert torch.equal(torch.cat([*tensor.blocks(torch.float32)]), whole.flatten())
    return whole


def random(*shape: int) -> Tensor:
    """Normal values."""
    return torch.randn(shape)
