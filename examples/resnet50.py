"""ResNet-50, 26 million parameters, sorting images into 1000 classes.

Special here: convolutions; batch normalisation, whose running statistics are buffers and not
parameters; and layers that cost the same but whose outputs shrink, so late cuts send less.
"""

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification


def model() -> nn.Module:
    torch.manual_seed(0)
    return ResNetForImageClassification(ResNetConfig(num_labels=1000)).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"pixel_values": torch.randn(2, 3, 224, 224)}


dynamic_shapes = {"pixel_values": {0: "batch"}}
