"""One architecture of the zoo: a small model from its configuration, and inputs for it of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import torch
import transformers as t
from torch import nn

Inputs: TypeAlias = dict[str, torch.Tensor]

VOCABULARY = 128
BODY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
SIZED = {"image_size": 32, "patch_size": 8, "num_channels": 3}


@dataclass(frozen=True)
class Entry:
    """How to make the model, its inputs for a batch and a length, and which of its sizes one would change."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    dynamic: Mapping[str, Mapping[int, str]]
    known: str = ""  # why it fails or differs, where the reason lies in the model's own code, and what to do

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.make().eval()
        enliven(model)
        settle(model, self.inputs(4, 16))
        return model


@torch.no_grad()
def settle(model: nn.Module, inputs: Inputs) -> None:
    """Batch norms get the statistics of a batch: with none, activations fade from layer to layer."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        model(**inputs)
    model.eval()


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Weights for which every layer counts: most are made so small, or zero, that outputs hardly feel the inputs."""
    for weight in model.parameters():
        noise = torch.randn_like(weight)
        weight.copy_(weight + 0.1 * noise if weight.dim() < 2 else noise * _spread(weight.shape))
    for tensor in model.state_dict().values():
        if tensor.dim() > 1 and tensor.is_floating_point() and not tensor.any():
            tensor.normal_()  # a code book, kept as a buffer


def _spread(shape: torch.Size) -> float:
    """Keeps the size of activations from layer to layer; kernels of images stand before a ReLU."""
    match shape:
        case (_, inputs):
            return inputs**-0.5
        case (_, *experts_or_kernel) if len(shape) == 3:
            return max(experts_or_kernel) ** -0.5
        case _:
            return (3 / prod(shape[1:])) ** 0.5


def from_config(head: type[Any], kind: str, **options: Any) -> Callable[[], nn.Module]:
    """A model with random weights, by the name that transformers has for its configuration."""
    make = getattr(head, "from_config", head)  # of the model with that head, or of a class that is named
    return lambda: make(t.AutoConfig.for_model(kind, **options))


# ---- text

TEXT = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "attention_mask")}


def ids(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, seq))


def text(batch: int, seq: int) -> Inputs:
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[0, seq // 2 :] = 0
    return {"input_ids": ids(batch, seq), "attention_mask": mask}


def text_entry(head: type[Any], kind: str, **options: Any) -> Entry:
    """Token ids and a padding mask, both of which may have any batch and length."""
    return Entry(from_config(head, kind, **options), text, TEXT)


def causal(kind: str, **options: Any) -> Entry:
    """A decoder that predicts the next token."""
    return text_entry(t.AutoModelForCausalLM, kind, **{**BODY, **TOKENS, "use_cache": False, **options})


def masked(kind: str, **options: Any) -> Entry:
    """An encoder that fills in tokens."""
    return text_entry(t.AutoModelForMaskedLM, kind, **{**BODY, **TOKENS, **options})


def without_mask(entry: Entry) -> Entry:
    """The same for a model that takes token ids alone."""
    only = "input_ids"
    return replace(entry, inputs=lambda batch, seq: {only: ids(batch, seq)}, dynamic={only: TEXT[only]})


def pair(batch: int, seq: int) -> Inputs:
    return text(batch, seq) | {"decoder_input_ids": ids(batch, seq + 3)}


PAIR = {"input_ids": {0: "batch", 1: "source"}, "attention_mask": {0: "batch", 1: "source"}}
PAIR |= {"decoder_input_ids": {0: "batch", 1: "target"}}


def translator(kind: str, **options: Any) -> Entry:
    """An encoder of a source text and a decoder of a target text."""
    return Entry(from_config(t.AutoModelForSeq2SeqLM, kind, **{**TOKENS, "use_cache": False, **options}), pair, PAIR)


# ---- images

BATCH = {"pixel_values": {0: "batch"}}
AREA = {"pixel_values": {0: "batch", 2: "height", 3: "width"}}


def image(size: int) -> Callable[[int, int], Inputs]:
    return lambda batch, _: {"pixel_values": torch.randn(batch, 3, size, size)}


def area(step: int, least: int = 2) -> Callable[[int, int], Inputs]:
    """Images whose height goes with the length that is asked for; they are a little wider than high."""
    return lambda batch, seq: {"pixel_values": torch.randn(batch, 3, step * (least + seq % 3), step * (least + 1))}


def vision(head: type[Any], kind: str, size: int = 32, **options: Any) -> Entry:
    """Images of one size: positions are learned for it, or windows are counted out."""
    return Entry(from_config(head, kind, **options), image(size), BATCH)


def convolutional(head: type[Any], kind: str, step: int = 32, **options: Any) -> Entry:
    """Images of any height and width."""
    return Entry(from_config(head, kind, **options), area(step), AREA)
