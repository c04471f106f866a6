"""resnet50, stage 0 of 3, for cpu.

takes    pixel_values: float32[batch, 3, 224, 224], an input of the model
returns  hidden_state: float32[batch, 512, 28, 28], to stage 1
holds    45 parameters, 2.3 MiB
alone    Stage0.load("stage_0.safetensors", device="cpu")(pixel_values)
"""

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {"pixel_values": (None, torch.float32, ("batch", 3, 224, 224))}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"hidden_state": ([1], [], torch.float32, ("batch", 512, 28, 28))}


class FrozenBatchNorm(nn.Module):  # nn.BatchNorm in evaluation, as the model was exported
    def __init__(self, features, eps=1e-5, dtype=torch.float32):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.running_mean, self.running_var = (nn.Buffer(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.eps = eps

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


# resnet.encoder.stages.0.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
class ResNetConvLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
        self.normalization = FrozenBatchNorm(64)

    def forward(self, hidden_states):
        hidden_states = self.convolution(hidden_states)
        hidden_states = self.normalization(hidden_states)
        return F.relu(hidden_states)


# resnet.encoder.stages.0.layers.1 (transformers/models/resnet/modeling_resnet.py:174)
class ResNetBottleNeckLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList([nn.Module(), ResNetConvLayer(), nn.Module()])
        self.layer[0].convolution = nn.Conv2d(256, 64, kernel_size=1, bias=False)
        self.layer[0].normalization = FrozenBatchNorm(64)
        self.layer[2].convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.layer[2].normalization = FrozenBatchNorm(256)

    def forward(self, hidden_state):
        # layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[0].convolution(hidden_state)
        hidden_states = self.layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # transformers/models/resnet/modeling_resnet.py:174
        hidden_states = self.layer[1](hidden_states)
        # layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[2].convolution(hidden_states)
        hidden_states = self.layer[2].normalization(hidden_states)
        # transformers/models/resnet/modeling_resnet.py:176
        hidden_state = hidden_states + hidden_state
        return F.relu(hidden_state)


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet: Any = nn.Module()
        self.resnet.embedder = nn.Module()
        self.resnet.embedder.embedder = nn.Module()
        self.resnet.embedder.embedder.convolution = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.resnet.embedder.embedder.normalization = FrozenBatchNorm(64)
        self.resnet.encoder = nn.Module()
        self.resnet.encoder.stages = nn.ModuleList(nn.Module() for _ in range(2))
        self.resnet.encoder.stages[0].layers = nn.ModuleList(
            [nn.Module(), ResNetBottleNeckLayer(), ResNetBottleNeckLayer()]
        )
        self.resnet.encoder.stages[0].layers[0].shortcut = nn.Module()
        self.resnet.encoder.stages[0].layers[0].shortcut.convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.resnet.encoder.stages[0].layers[0].shortcut.normalization = FrozenBatchNorm(256)
        self.resnet.encoder.stages[0].layers[0].layer = nn.ModuleList([nn.Module(), ResNetConvLayer(), nn.Module()])
        self.resnet.encoder.stages[0].layers[0].layer[0].convolution = nn.Conv2d(64, 64, kernel_size=1, bias=False)
        self.resnet.encoder.stages[0].layers[0].layer[0].normalization = FrozenBatchNorm(64)
        self.resnet.encoder.stages[0].layers[0].layer[2].convolution = nn.Conv2d(64, 256, kernel_size=1, bias=False)
        self.resnet.encoder.stages[0].layers[0].layer[2].normalization = FrozenBatchNorm(256)
        self.resnet.encoder.stages[1].layers = nn.ModuleList([nn.Module()])
        self.resnet.encoder.stages[1].layers[0].shortcut = nn.Module()
        self.resnet.encoder.stages[1].layers[0].shortcut.convolution = nn.Conv2d(
            256, 512, kernel_size=1, stride=2, bias=False
        )
        self.resnet.encoder.stages[1].layers[0].shortcut.normalization = FrozenBatchNorm(512)
        self.resnet.encoder.stages[1].layers[0].layer = nn.ModuleList(nn.Module() for _ in range(3))
        self.resnet.encoder.stages[1].layers[0].layer[0].convolution = nn.Conv2d(256, 128, kernel_size=1, bias=False)
        self.resnet.encoder.stages[1].layers[0].layer[0].normalization = FrozenBatchNorm(128)
        self.resnet.encoder.stages[1].layers[0].layer[1].convolution = nn.Conv2d(
            128, 128, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.resnet.encoder.stages[1].layers[0].layer[1].normalization = FrozenBatchNorm(128)
        self.resnet.encoder.stages[1].layers[0].layer[2].convolution = nn.Conv2d(128, 512, kernel_size=1, bias=False)
        self.resnet.encoder.stages[1].layers[0].layer[2].normalization = FrozenBatchNorm(512)

    def forward(self, pixel_values):
        # resnet.embedder.embedder (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.resnet.embedder.embedder.convolution(pixel_values)
        hidden_states = self.resnet.embedder.embedder.normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.embedder (transformers/models/resnet/modeling_resnet.py:92)
        embedding = F.max_pool2d(hidden_states, 3, stride=2, padding=1)
        # resnet.encoder.stages.0.layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        layer = self.resnet.encoder.stages[0].layers[0]
        hidden_states = layer.layer[0].convolution(embedding)
        hidden_states = layer.layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.0.layers.0 (transformers/models/resnet/modeling_resnet.py:174)
        hidden_states = layer.layer[1](hidden_states)
        # resnet.encoder.stages.0.layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = layer.layer[2].convolution(hidden_states)
        hidden_states = layer.layer[2].normalization(hidden_states)
        # resnet.encoder.stages.0.layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = layer.shortcut.convolution(embedding)
        hidden_state = layer.shortcut.normalization(hidden_state)
        # resnet.encoder.stages.0.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state = F.relu(hidden_state)
        # resnet.encoder.stages.0 (transformers/models/resnet/modeling_resnet.py:215)
        hidden_state = self.resnet.encoder.stages[0].layers[1](hidden_state)
        hidden_state = self.resnet.encoder.stages[0].layers[2](hidden_state)
        # resnet.encoder.stages.1.layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        layer = self.resnet.encoder.stages[1].layers[0]
        hidden_states = layer.layer[0].convolution(hidden_state)
        hidden_states = layer.layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.1.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = layer.layer[1].convolution(hidden_states)
        hidden_states = layer.layer[1].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.1.layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = layer.layer[2].convolution(hidden_states)
        hidden_states = layer.layer[2].normalization(hidden_states)
        # resnet.encoder.stages.1.layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = layer.shortcut.convolution(hidden_state)
        hidden_state = layer.shortcut.normalization(hidden_state)
        # resnet.encoder.stages.1.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state = F.relu(hidden_state)
        return (hidden_state,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        list(ThreadPoolExecutor(11).map(lambda share: read_weights(stage, path, device, share), range(11)))
        return stage.eval()


def read_weights(stage, path, device, share):
    """Give a stage on the meta device every eleventh weight from a share on, by memory that GPUs copy from fast."""
    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    room = torch.empty(1 << 22, dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")
    memory = memoryview((ctypes.c_byte * len(room)).from_address(room.data_ptr())).cast("B")
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, empty in [*stage.named_parameters(), *stage.named_buffers()][share::11]:  # in torch's default dtype
            tensor = torch.empty(empty.shape, dtype=floats.get(table[name]["dtype"], empty.dtype), device=device)
            first, last = table[name]["data_offsets"]
            file.seek(start + first)
            for piece in tensor.view(-1).view(torch.uint8).split(len(room)):
                if last - first != tensor.nbytes or file.readinto(memory[: len(piece)]) != len(piece):
                    raise ValueError(f"{name} is not whole in {path}")
                piece.copy_(room[: len(piece)])
            torch.utils.swap_tensors(empty, torch.Tensor._make_subclass(type(empty), tensor, empty.requires_grad))
