"""GPT-2 at its real size, 124 million parameters, as transformers has it.

Special here: the weights come from a checkpoint on disk, and the token embedding and the language
model's head are one weight, stored once.  Nothing is downloaded: the first use makes the checkpoint,
with random weights.
"""

import os
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils.logging import disable_progress_bar

checkpoint = Path(__file__).resolve().parents[1] / "build/checkpoints/gpt2/model.safetensors"


def model() -> nn.Module:
    disable_progress_bar()
    return GPT2LMHeadModel.from_pretrained(checkpoint.parent).eval()


def save_random_weights(folder: Path) -> None:
    """Write a checkpoint folder as transformers does; a half-written one is never seen."""
    torch.manual_seed(0)
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    GPT2LMHeadModel(GPT2Config(use_cache=False)).save_pretrained(fresh)
    folder.mkdir(exist_ok=True)
    for file in sorted(fresh.iterdir()):  # the weights come last
        file.replace(folder / file.name)
    fresh.rmdir()


if not checkpoint.exists():  # here, as weights that `model` makes have no values while it is cut
    save_random_weights(checkpoint.parent)


def example_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"input_ids": torch.randint(50257, (2, 32)), "attention_mask": torch.ones(2, 32, dtype=torch.int64)}


dynamic_shapes = {
    "input_ids": {0: "batch", 1: "seq"},
    "attention_mask": {0: "batch", 1: "seq"},
}
