"""T5 small, 60 million parameters: an encoder and a decoder.

Special here: what the encoder returns feeds every layer of the decoder, so it crosses each cut behind
the encoder; the two sides have lengths of their own; and the first layer's position bias is used by
all layers of its side.
"""

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration


def model() -> nn.Module:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(use_cache=False)).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "input_ids": torch.randint(32128, (2, 32)),
        "attention_mask": torch.ones(2, 32, dtype=torch.int64),
        "decoder_input_ids": torch.randint(32128, (2, 24)),
    }


dynamic_shapes = {
    "input_ids": {0: "batch", 1: "source"},
    "attention_mask": {0: "batch", 1: "source"},
    "decoder_input_ids": {0: "batch", 1: "target"},
}
