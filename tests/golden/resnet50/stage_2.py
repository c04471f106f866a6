"""resnet50, stage 2 of 3, for cpu.

takes    hidden_states: float32[batch, 256, 14, 14], from stage 1
takes    hidden_state_1: float32[batch, 1024, 14, 14], from stage 1
returns  logits: float32[batch, 1000], to output 0 of the model
holds    62 parameters, 78.8 MiB
alone    Stage2.load("stage_2.safetensors", device="cpu")(hidden_states, hidden_state_1)
"""

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "hidden_states": (1, torch.float32, ("batch", 256, 14, 14)),
    "hidden_state_1": (1, torch.float32, ("batch", 1024, 14, 14)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"logits": ([], [0], torch.float32, ("batch", 1000))}


class FrozenBatchNorm(nn.Module):  # nn.BatchNorm in evaluation, as the model was exported
    def __init__(self, features, eps=1e-5, dtype=torch.float32):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.running_mean, self.running_var = (nn.Buffer(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.eps = eps

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


# resnet.encoder.stages.2.layers.3 (transformers/models/resnet/modeling_resnet.py:174)
class ResNetBottleNeckLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList(nn.Module() for _ in range(3))
        self.layer[0].convolution = nn.Conv2d(1024, 256, kernel_size=1, bias=False)
        self.layer[0].normalization = FrozenBatchNorm(256)
        self.layer[1].convolution = nn.Conv2d(256, 256, kernel_size=3, padding=1, bias=False)
        self.layer[1].normalization = FrozenBatchNorm(256)
        self.layer[2].convolution = nn.Conv2d(256, 1024, kernel_size=1, bias=False)
        self.layer[2].normalization = FrozenBatchNorm(1024)

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


# resnet.encoder.stages.3.layers.1 (transformers/models/resnet/modeling_resnet.py:174)
class ResNetBottleNeckLayer2(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList(nn.Module() for _ in range(3))
        self.layer[0].convolution = nn.Conv2d(2048, 512, kernel_size=1, bias=False)
        self.layer[0].normalization = FrozenBatchNorm(512)
        self.layer[1].convolution = nn.Conv2d(512, 512, kernel_size=3, padding=1, bias=False)
        self.layer[1].normalization = FrozenBatchNorm(512)
        self.layer[2].convolution = nn.Conv2d(512, 2048, kernel_size=1, bias=False)
        self.layer[2].normalization = FrozenBatchNorm(2048)

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


class Stage2(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet: Any = nn.Module()
        self.resnet.encoder = nn.Module()
        self.resnet.encoder.stages = nn.ModuleDict({str(i): nn.Module() for i in range(2, 4)})
        self.resnet.encoder.stages["2"].layers = nn.ModuleDict(
            {"2": nn.Module(), **{str(i): ResNetBottleNeckLayer() for i in range(3, 6)}}
        )
        self.resnet.encoder.stages["2"].layers["2"].layer = nn.ModuleDict({"2": nn.Module()})
        self.resnet.encoder.stages["2"].layers["2"].layer["2"].convolution = nn.Conv2d(
            256, 1024, kernel_size=1, bias=False
        )
        self.resnet.encoder.stages["2"].layers["2"].layer["2"].normalization = FrozenBatchNorm(1024)
        self.resnet.encoder.stages["3"].layers = nn.ModuleList(
            [nn.Module(), ResNetBottleNeckLayer2(), ResNetBottleNeckLayer2()]
        )
        self.resnet.encoder.stages["3"].layers[0].shortcut = nn.Module()
        self.resnet.encoder.stages["3"].layers[0].shortcut.convolution = nn.Conv2d(
            1024, 2048, kernel_size=1, stride=2, bias=False
        )
        self.resnet.encoder.stages["3"].layers[0].shortcut.normalization = FrozenBatchNorm(2048)
        self.resnet.encoder.stages["3"].layers[0].layer = nn.ModuleList(nn.Module() for _ in range(3))
        self.resnet.encoder.stages["3"].layers[0].layer[0].convolution = nn.Conv2d(1024, 512, kernel_size=1, bias=False)
        self.resnet.encoder.stages["3"].layers[0].layer[0].normalization = FrozenBatchNorm(512)
        self.resnet.encoder.stages["3"].layers[0].layer[1].convolution = nn.Conv2d(
            512, 512, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.resnet.encoder.stages["3"].layers[0].layer[1].normalization = FrozenBatchNorm(512)
        self.resnet.encoder.stages["3"].layers[0].layer[2].convolution = nn.Conv2d(512, 2048, kernel_size=1, bias=False)
        self.resnet.encoder.stages["3"].layers[0].layer[2].normalization = FrozenBatchNorm(2048)
        self.classifier = nn.ModuleDict({"1": nn.Linear(2048, 1000)})

    def forward(self, hidden_states, hidden_state_1):
        # resnet.encoder.stages.2.layers.2.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = self.resnet.encoder.stages["2"].layers["2"].layer["2"].convolution(hidden_states)
        hidden_states = self.resnet.encoder.stages["2"].layers["2"].layer["2"].normalization(hidden_states)
        # resnet.encoder.stages.2.layers.2 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state_1
        del hidden_state_1
        hidden_state = F.relu(hidden_state)
        for layer in list(self.resnet.encoder.stages["2"].layers.values())[1:]:
            # resnet.encoder.stages.2 (transformers/models/resnet/modeling_resnet.py:215)
            hidden_state = layer(hidden_state)
        # resnet.encoder.stages.3.layers.0.layer.0 (transformers/models/resnet/modeling_resnet.py:66)
        stage = self.resnet.encoder.stages["3"]
        hidden_states = stage.layers[0].layer[0].convolution(hidden_state)
        hidden_states = stage.layers[0].layer[0].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.3.layers.0.layer.1 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = stage.layers[0].layer[1].convolution(hidden_states)
        hidden_states = stage.layers[0].layer[1].normalization(hidden_states)
        hidden_states = F.relu(hidden_states)
        # resnet.encoder.stages.3.layers.0.layer.2 (transformers/models/resnet/modeling_resnet.py:66)
        hidden_states = stage.layers[0].layer[2].convolution(hidden_states)
        hidden_states = stage.layers[0].layer[2].normalization(hidden_states)
        # resnet.encoder.stages.3.layers.0.shortcut (transformers/models/resnet/modeling_resnet.py:108)
        hidden_state = stage.layers[0].shortcut.convolution(hidden_state)
        hidden_state = stage.layers[0].shortcut.normalization(hidden_state)
        # resnet.encoder.stages.3.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        hidden_state = hidden_states + hidden_state
        del hidden_states
        hidden_state = F.relu(hidden_state)
        # resnet.encoder.stages.3 (transformers/models/resnet/modeling_resnet.py:215)
        hidden_state = stage.layers[1](hidden_state)
        hidden_state = stage.layers[2](hidden_state)
        # resnet (transformers/models/resnet/modeling_resnet.py:322)
        pooled_output = F.adaptive_avg_pool2d(hidden_state, 1)
        # the model itself (transformers/models/resnet/modeling_resnet.py:373)
        logits = self.classifier["1"](pooled_output.flatten(1))
        return (logits,)

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
