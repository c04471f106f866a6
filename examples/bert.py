"""BERT base, 110 million parameters, predicting masked words.

Special here: attention looks both ways, so every layer needs the mask made from `attention_mask`; and
the second sentence's words carry another token type.  The embedding and the head are one weight.
"""

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM


def model() -> nn.Module:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig()).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    input_ids = torch.randint(1000, 30522, (2, 32))
    attention_mask = torch.ones(2, 32, dtype=torch.int64)
    attention_mask[1, 24:] = 0  # the second text is shorter
    token_type_ids = torch.zeros(2, 32, dtype=torch.int64)
    token_type_ids[:, 16:] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


dynamic_shapes = {
    "input_ids": {0: "batch", 1: "seq"},
    "attention_mask": {0: "batch", 1: "seq"},
    "token_type_ids": {0: "batch", 1: "seq"},
}
