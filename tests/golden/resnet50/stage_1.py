"""resnet50, stage 1 of 3, for cpu.

takes    hidden_state: float32[batch, 512, 28, 28], from stage 0
returns  hidden_states: float32[batch, 256, 14, 14], to stage 2
returns  hidden_state_1: float32[batch, 1024, 14, 14], to stage 2
holds    54 parameters, 16.5 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(hidden_state)
"""

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {"hidden_state": (0, torch.float32, ("batch", 512, 28, 28))}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "hidden_states": ([2], [], torch.float32, ("batch", 256, 14, 14)),
    "hidden_state_1": ([2], [], torch.float32, ("batch", 1024, 14, 14)),
}


class FrozenBatchNorm(nn.Module):  # nn.BatchNorm in evaluation, as the model was exported
    def __init__(self, features, eps=1e-5, dtype=torch.float32):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.running_mean, self.running_var = (nn.Buffer(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.eps = eps

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


# resnet.encoder.stages.1.layers.1 (transformers/models/resnet/modeling_resnet.py:174)
class ResNetBottleNeckLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList(nn.Module() for _ in range(3))
        self.layer[0].convolution = nn.Conv2d(512, 128, kernel_size=1, bias=False)
        self.layer[0].normalization = FrozenBatchNorm(128)
        self.layer[1].convolution = nn.Conv2d(128, 128, kernel_size=3, padding=1, bias=False)
        self.layer[1].normalization = FrozenBatchNorm(128)
        self.layer[2].convolution = nn.Conv2d(128, 512, kernel_size=1, bias=False)
        self.layer[2].normalization = FrozenBatchNorm(512)

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_state):
        # layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[0].convolution(hidden_state)
        hidden_states = self.layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # layer.1 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[1].convolution(hidden_states)
        hidden_states = self.layer[1].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.layer[2].convolution(hidden_states)
        hidden_states = self.layer[2].normalization(hidden_states)
        # transformers/models/resnet/modeling_resnet.py:176
        hidden_state = hidden_states + hidden_state
        return F.relu(hidden_state)


# resnet.encoder.stages.2.layers.1.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
class ResNetConvLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1024, 256, kernel_size=1, bias=False)
        self.normalization = FrozenBatchNorm(256)

    def forward(self, hidden_states):
        hidden_states = self.convolution(hidden_states)
        hidden_states = self.normalization(hidden_states)
        return F.relu(hidden_states)


# resnet.encoder.stages.2.layers.1.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
class ResNetConvLayer2(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(256, 256, kernel_size=3, padding=1, bias=False)
        self.normalization = FrozenBatchNorm(256)

    def forward(self, hidden_states):
        hidden_states = self.convolution(hidden_states)
        hidden_states = self.normalization(hidden_states)
        return F.relu(hidden_states)


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet: Any = nn.Module()
        self.resnet.encoder = nn.Module()
        self.resnet.encoder.stages = nn.ModuleDict({str(i): nn.Module() for i in range(1, 3)})
        self.resnet.encoder.stages["1"].layers = nn.ModuleDict({str(i): ResNetBottleNeckLayer() for i in range(1, 4)})
        self.resnet.encoder.stages["2"].layers = nn.ModuleList(nn.Module() for _ in range(3))
        self.resnet.encoder.stages["2"].layers[0].shortcut = nn.Module()
        self.resnet.encoder.stages["2"].layers[0].shortcut.convolution = nn.Conv2d(
            512, 1024, kernel_size=1, stride=2, bias=False
        )
        self.resnet.encoder.stages["2"].layers[0].shortcut.normalization = FrozenBatchNorm(1024)
        self.resnet.encoder.stages["2"].layers[0].layer = nn.ModuleList(nn.Module() for _ in range(3))
        self.resnet.encoder.stages["2"].layers[0].layer[0].convolution = nn.Conv2d(512, 256, kernel_size=1, bias=False)
        self.resnet.encoder.stages["2"].layers[0].layer[0].normalization = FrozenBatchNorm(256)
        self.resnet.encoder.stages["2"].layers[0].layer[1].convolution = nn.Conv2d(
            256, 256, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.resnet.encoder.stages["2"].layers[0].layer[1].normalization = FrozenBatchNorm(256)
        self.resnet.encoder.stages["2"].layers[0].layer[2].convolution = nn.Conv2d(256, 1024, kernel_size=1, bias=False)
        self.resnet.encoder.stages["2"].layers[0].layer[2].normalization = FrozenBatchNorm(1024)
        self.resnet.encoder.stages["2"].layers[1].layer = nn.ModuleList(
            [ResNetConvLayer(), ResNetConvLayer2(), nn.Module()]
        )
        self.resnet.encoder.stages["2"].layers[1].layer[2].convolution = nn.Conv2d(256, 1024, kernel_size=1, bias=False)
        self.resnet.encoder.stages["2"].layers[1].layer[2].normalization = FrozenBatchNorm(1024)
        self.resnet.encoder.stages["2"].layers[2].layer = nn.ModuleList([ResNetConvLayer(), ResNetConvLayer2()])

    def forward(self, hidden_state):
        for layer in self.resnet.encoder.stages["1"].layers.values():
            # resnet.encoder.stages.1 (transformers/models/resnet/modeling_resnet.py:215)
            hidden_state = layer(hidden_state)
        # resnet.encoder.stages.2.layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        stage = self.resnet.encoder.stages["2"]
        hidden_states = stage.layers[0].layer[0].convolution(hidden_state)
        hidden_states = stage.layers[0].layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.2.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = stage.layers[0].layer[1].convolution(hidden_states)
        hidden_states = stage.layers[0].layer[1].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.2.layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = stage.layers[0].layer[2].convolution(hidden_states)
        hidden_states = stage.layers[0].layer[2].normalization(hidden_states)
        # resnet.encoder.stages.2.layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = stage.layers[0].shortcut.convolution(hidden_state)
        hidden_state = stage.layers[0].shortcut.normalization(hidden_state)
        # resnet.encoder.stages.2.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state = F.relu(hidden_state)
        # resnet.encoder.stages.2.layers.1 (transformers/models/resnet/modeling_resnet.py:174)
        hidden_states = stage.layers[1].layer[0](hidden_state)
        hidden_states = stage.layers[1].layer[1](hidden_states)
        # resnet.encoder.stages.2.layers.1.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = stage.layers[1].layer[2].convolution(hidden_states)
        hidden_states = stage.layers[1].layer[2].normalization(hidden_states)
        # resnet.encoder.stages.2.layers.1 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        hidden_state_1 = F.relu(hidden_state)
        # resnet.encoder.stages.2.layers.2 (transformers/models/resnet/modeling_resnet.py:174)
        hidden_states = stage.layers[2].layer[0](hidden_state_1)
        hidden_states = stage.layers[2].layer[1](hidden_states)
        return (hidden_states, hidden_state_1)

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
