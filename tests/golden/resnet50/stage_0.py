"""resnet50, stage 0 of 3, for cpu.

takes    pixel_values: float32[batch, 3, 224, 224], an input of the model
returns  hidden_states: float32[batch, 128, 28, 28], to stage 1
returns  hidden_state: float32[batch, 512, 28, 28], to stage 1
holds    48 parameters, 2.6 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(pixel_values)
"""

import ctypes
import json
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "pixel_values": (None, torch.float32, ("batch", 3, 224, 224)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "hidden_states": ([1], [], torch.float32, ("batch", 128, 28, 28)),
    "hidden_state": ([1], [], torch.float32, ("batch", 512, 28, 28)),
}


# resnet.encoder.stages.0.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
class ResNetConvLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
        self.normalization: Any = nn.Module()
        self.normalization.weight = nn.Parameter(torch.empty(64))
        self.normalization.bias = nn.Parameter(torch.empty(64))
        self.normalization.running_mean = nn.Buffer(torch.empty(64))
        self.normalization.running_var = nn.Buffer(torch.empty(64))

    def forward(self, hidden_states):
        hidden_states = self.convolution(hidden_states)
        hidden_states = F.batch_norm(
            hidden_states,
            self.normalization.running_mean,
            self.normalization.running_var,
            self.normalization.weight,
            self.normalization.bias,
            eps=1e-05,
        )
        return F.relu(hidden_states)


# resnet.encoder.stages.0.layers.1 (transformers/models/resnet/modeling_resnet.py:174)
class ResNetBottleNeckLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList([nn.Module(), ResNetConvLayer(), nn.Module()])
        self.layer[0].convolution = nn.Conv2d(256, 64, kernel_size=1, bias=False)
        self.layer[0].normalization = nn.Module()
        self.layer[0].normalization.weight = nn.Parameter(torch.empty(64))
        self.layer[0].normalization.bias = nn.Parameter(torch.empty(64))
        self.layer[0].normalization.running_mean = nn.Buffer(torch.empty(64))
        self.layer[0].normalization.running_var = nn.Buffer(torch.empty(64))
        self.layer[2].convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.layer[2].normalization = nn.Module()
        self.layer[2].normalization.weight = nn.Parameter(torch.empty(256))
        self.layer[2].normalization.bias = nn.Parameter(torch.empty(256))
        self.layer[2].normalization.running_mean = nn.Buffer(torch.empty(256))
        self.layer[2].normalization.running_var = nn.Buffer(torch.empty(256))

    def forward(self, hidden_state):
        # layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[0].convolution(hidden_state)
        hidden_states = F.batch_norm(
            hidden_states,
            self.layer[0].normalization.running_mean,
            self.layer[0].normalization.running_var,
            self.layer[0].normalization.weight,
            self.layer[0].normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        # transformers/models/resnet/modeling_resnet.py:174
        residual = hidden_state
        hidden_state = self.layer[1](hidden_states)
        # layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[2].convolution(hidden_state)
        hidden_states = F.batch_norm(
            hidden_states,
            self.layer[2].normalization.running_mean,
            self.layer[2].normalization.running_var,
            self.layer[2].normalization.weight,
            self.layer[2].normalization.bias,
            eps=1e-05,
        )
        # transformers/models/resnet/modeling_resnet.py:176
        hidden_state = hidden_states + residual
        return F.relu(hidden_state)


class ResNetStage(nn.Module):  # resnet.encoder.stages.0 (transformers/models/resnet/modeling_resnet.py:215)
    def __init__(self):
        super().__init__()
        self.layers: Any = nn.ModuleList([nn.Module(), ResNetBottleNeckLayer(), ResNetBottleNeckLayer()])
        self.layers[0].layer = nn.ModuleList([nn.Module(), ResNetConvLayer(), nn.Module()])
        self.layers[0].layer[0].convolution = nn.Conv2d(64, 64, kernel_size=1, bias=False)
        self.layers[0].layer[0].normalization = nn.Module()
        self.layers[0].layer[0].normalization.weight = nn.Parameter(torch.empty(64))
        self.layers[0].layer[0].normalization.bias = nn.Parameter(torch.empty(64))
        self.layers[0].layer[0].normalization.running_mean = nn.Buffer(torch.empty(64))
        self.layers[0].layer[0].normalization.running_var = nn.Buffer(torch.empty(64))
        self.layers[0].layer[2].convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.layers[0].layer[2].normalization = nn.Module()
        self.layers[0].layer[2].normalization.weight = nn.Parameter(torch.empty(256))
        self.layers[0].layer[2].normalization.bias = nn.Parameter(torch.empty(256))
        self.layers[0].layer[2].normalization.running_mean = nn.Buffer(torch.empty(256))
        self.layers[0].layer[2].normalization.running_var = nn.Buffer(torch.empty(256))
        self.layers[0].shortcut = nn.Module()
        self.layers[0].shortcut.convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.layers[0].shortcut.normalization = nn.Module()
        self.layers[0].shortcut.normalization.weight = nn.Parameter(torch.empty(256))
        self.layers[0].shortcut.normalization.bias = nn.Parameter(torch.empty(256))
        self.layers[0].shortcut.normalization.running_mean = nn.Buffer(torch.empty(256))
        self.layers[0].shortcut.normalization.running_var = nn.Buffer(torch.empty(256))

    def forward(self, input):
        # layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layers[0].layer[0].convolution(input)
        hidden_states = F.batch_norm(
            hidden_states,
            self.layers[0].layer[0].normalization.running_mean,
            self.layers[0].layer[0].normalization.running_var,
            self.layers[0].layer[0].normalization.weight,
            self.layers[0].layer[0].normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        # layers.0 (transformers/models/resnet/modeling_resnet.py:174)
        hidden_state = self.layers[0].layer[1](hidden_states)
        # layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layers[0].layer[2].convolution(hidden_state)
        hidden_states = F.batch_norm(
            hidden_states,
            self.layers[0].layer[2].normalization.running_mean,
            self.layers[0].layer[2].normalization.running_var,
            self.layers[0].layer[2].normalization.weight,
            self.layers[0].layer[2].normalization.bias,
            eps=1e-05,
        )
        # layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = self.layers[0].shortcut.convolution(input)
        hidden_state = F.batch_norm(
            hidden_state,
            self.layers[0].shortcut.normalization.running_mean,
            self.layers[0].shortcut.normalization.running_var,
            self.layers[0].shortcut.normalization.weight,
            self.layers[0].shortcut.normalization.bias,
            eps=1e-05,
        )
        # layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state = F.relu(hidden_state)
        # transformers/models/resnet/modeling_resnet.py:215
        return self.layers[2](self.layers[1](hidden_state))


class ResNetEncoder(nn.Module):  # resnet.encoder (transformers/models/resnet/modeling_resnet.py:246)
    def __init__(self):
        super().__init__()
        self.stages: Any = nn.ModuleList([ResNetStage(), nn.Module()])
        self.stages[1].layers = nn.ModuleList(nn.Module() for _ in range(2))
        self.stages[1].layers[0].layer = nn.ModuleList(nn.Module() for _ in range(3))
        self.stages[1].layers[0].layer[0].convolution = nn.Conv2d(256, 128, kernel_size=1, bias=False)
        self.stages[1].layers[0].layer[0].normalization = nn.Module()
        self.stages[1].layers[0].layer[0].normalization.weight = nn.Parameter(torch.empty(128))
        self.stages[1].layers[0].layer[0].normalization.bias = nn.Parameter(torch.empty(128))
        self.stages[1].layers[0].layer[0].normalization.running_mean = nn.Buffer(torch.empty(128))
        self.stages[1].layers[0].layer[0].normalization.running_var = nn.Buffer(torch.empty(128))
        self.stages[1].layers[0].layer[1].convolution = nn.Conv2d(
            128, 128, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.stages[1].layers[0].layer[1].normalization = nn.Module()
        self.stages[1].layers[0].layer[1].normalization.weight = nn.Parameter(torch.empty(128))
        self.stages[1].layers[0].layer[1].normalization.bias = nn.Parameter(torch.empty(128))
        self.stages[1].layers[0].layer[1].normalization.running_mean = nn.Buffer(torch.empty(128))
        self.stages[1].layers[0].layer[1].normalization.running_var = nn.Buffer(torch.empty(128))
        self.stages[1].layers[0].layer[2].convolution = nn.Conv2d(128, 512, kernel_size=1, bias=False)
        self.stages[1].layers[0].layer[2].normalization = nn.Module()
        self.stages[1].layers[0].layer[2].normalization.weight = nn.Parameter(torch.empty(512))
        self.stages[1].layers[0].layer[2].normalization.bias = nn.Parameter(torch.empty(512))
        self.stages[1].layers[0].layer[2].normalization.running_mean = nn.Buffer(torch.empty(512))
        self.stages[1].layers[0].layer[2].normalization.running_var = nn.Buffer(torch.empty(512))
        self.stages[1].layers[0].shortcut = nn.Module()
        self.stages[1].layers[0].shortcut.convolution = nn.Conv2d(256, 512, kernel_size=1, stride=2, bias=False)
        self.stages[1].layers[0].shortcut.normalization = nn.Module()
        self.stages[1].layers[0].shortcut.normalization.weight = nn.Parameter(torch.empty(512))
        self.stages[1].layers[0].shortcut.normalization.bias = nn.Parameter(torch.empty(512))
        self.stages[1].layers[0].shortcut.normalization.running_mean = nn.Buffer(torch.empty(512))
        self.stages[1].layers[0].shortcut.normalization.running_var = nn.Buffer(torch.empty(512))
        self.stages[1].layers[1].layer = nn.ModuleList([nn.Module()])
        self.stages[1].layers[1].layer[0].convolution = nn.Conv2d(512, 128, kernel_size=1, bias=False)
        self.stages[1].layers[1].layer[0].normalization = nn.Module()
        self.stages[1].layers[1].layer[0].normalization.weight = nn.Parameter(torch.empty(128))
        self.stages[1].layers[1].layer[0].normalization.bias = nn.Parameter(torch.empty(128))
        self.stages[1].layers[1].layer[0].normalization.running_mean = nn.Buffer(torch.empty(128))
        self.stages[1].layers[1].layer[0].normalization.running_var = nn.Buffer(torch.empty(128))

    def forward(self, hidden_state):
        hidden_state = self.stages[0](hidden_state)
        # stages.1.layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.stages[1].layers[0].layer[0].convolution(hidden_state)
        hidden_states = F.batch_norm(
            hidden_states,
            self.stages[1].layers[0].layer[0].normalization.running_mean,
            self.stages[1].layers[0].layer[0].normalization.running_var,
            self.stages[1].layers[0].layer[0].normalization.weight,
            self.stages[1].layers[0].layer[0].normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        # stages.1.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.stages[1].layers[0].layer[1].convolution(hidden_states)
        hidden_states = F.batch_norm(
            hidden_states,
            self.stages[1].layers[0].layer[1].normalization.running_mean,
            self.stages[1].layers[0].layer[1].normalization.running_var,
            self.stages[1].layers[0].layer[1].normalization.weight,
            self.stages[1].layers[0].layer[1].normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        # stages.1.layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.stages[1].layers[0].layer[2].convolution(hidden_states)
        hidden_states = F.batch_norm(
            hidden_states,
            self.stages[1].layers[0].layer[2].normalization.running_mean,
            self.stages[1].layers[0].layer[2].normalization.running_var,
            self.stages[1].layers[0].layer[2].normalization.weight,
            self.stages[1].layers[0].layer[2].normalization.bias,
            eps=1e-05,
        )
        # stages.1.layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = self.stages[1].layers[0].shortcut.convolution(hidden_state)
        hidden_state = F.batch_norm(
            hidden_state,
            self.stages[1].layers[0].shortcut.normalization.running_mean,
            self.stages[1].layers[0].shortcut.normalization.running_var,
            self.stages[1].layers[0].shortcut.normalization.weight,
            self.stages[1].layers[0].shortcut.normalization.bias,
            eps=1e-05,
        )
        # stages.1.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state = F.relu(hidden_state)
        # stages.1.layers.1.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.stages[1].layers[1].layer[0].convolution(hidden_state)
        hidden_states = F.batch_norm(
            hidden_states,
            self.stages[1].layers[1].layer[0].normalization.running_mean,
            self.stages[1].layers[1].layer[0].normalization.running_var,
            self.stages[1].layers[1].layer[0].normalization.weight,
            self.stages[1].layers[1].layer[0].normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        return hidden_states, hidden_state


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet: Any = nn.Module()
        self.resnet.embedder = nn.Module()
        self.resnet.embedder.embedder = nn.Module()
        self.resnet.embedder.embedder.convolution = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.resnet.embedder.embedder.normalization = nn.Module()
        self.resnet.embedder.embedder.normalization.weight = nn.Parameter(torch.empty(64))
        self.resnet.embedder.embedder.normalization.bias = nn.Parameter(torch.empty(64))
        self.resnet.embedder.embedder.normalization.running_mean = nn.Buffer(torch.empty(64))
        self.resnet.embedder.embedder.normalization.running_var = nn.Buffer(torch.empty(64))
        self.resnet.encoder = ResNetEncoder()

    def forward(self, pixel_values):
        # resnet.embedder.embedder (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.resnet.embedder.embedder.convolution(pixel_values)
        hidden_states = F.batch_norm(
            hidden_states,
            self.resnet.embedder.embedder.normalization.running_mean,
            self.resnet.embedder.embedder.normalization.running_var,
            self.resnet.embedder.embedder.normalization.weight,
            self.resnet.embedder.embedder.normalization.bias,
            eps=1e-05,
        )
        hidden_states = F.relu(hidden_states)
        # resnet.embedder (transformers/models/resnet/modeling_resnet.py:92)
        embedding = F.max_pool2d(hidden_states, 3, stride=2, padding=1)
        # resnet (transformers/models/resnet/modeling_resnet.py:316)
        encoder_outputs, encoder = self.resnet.encoder(embedding)
        return (encoder_outputs, encoder)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        read_weights(stage, path, device)
        return stage.eval()


def read_weights(stage, path, device):
    """Give a stage made on the meta device its weights, one after the other."""
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, empty in [*stage.named_parameters(), *stage.named_buffers()]:
            tensor = torch.empty(empty.shape, dtype=empty.dtype)
            first, last = table[name]["data_offsets"]
            file.seek(start + first)
            memory = (ctypes.c_byte * tensor.nbytes).from_address(tensor.data_ptr())
            if last - first != tensor.nbytes or file.readinto(memory) != tensor.nbytes:
                raise ValueError(f"{name} is not whole in {path}")
            tensor = tensor.to(device)
            if isinstance(empty, nn.Parameter):
                tensor = nn.Parameter(tensor, empty.requires_grad)
            torch.utils.swap_tensors(empty, tensor)
