"""unet, stage 2 of 4, for cpu.

takes    hidden_1: float32[batch, 256, 8, 8], from stage 1
takes    time_1: float32[batch, 256], from stage 0
takes    hidden_2: float32[batch, 256, 16, 16], from stage 1
takes    hidden_3: float32[batch, 128, 32, 32], from stage 1
returns  hidden_4: float32[batch, 64, 32, 32], to stage 3
holds    40 parameters, 9.8 MiB
alone    Stage2.load("stage_2.safetensors", device="cpu")(hidden_1, time_1, hidden_2, hidden_3)
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
    "hidden_1": (1, torch.float32, ("batch", 256, 8, 8)),
    "time_1": (0, torch.float32, ("batch", 256)),
    "hidden_2": (1, torch.float32, ("batch", 256, 16, 16)),
    "hidden_3": (1, torch.float32, ("batch", 128, 32, 32)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"hidden_4": ([3], [], torch.float32, ("batch", 64, 32, 32))}


class Stage2(nn.Module):
    def __init__(self):
        super().__init__()
        self.middle: Any = nn.ModuleDict({"1": nn.Module()})
        self.middle["1"].norm1 = nn.GroupNorm(8, 256)
        self.middle["1"].conv1 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.middle["1"].time = nn.Linear(256, 256)
        self.middle["1"].norm2 = nn.GroupNorm(8, 256)
        self.middle["1"].conv2 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.attention: Any = nn.Module()
        self.attention.norm = nn.GroupNorm(8, 256)
        self.attention.query_key_value = nn.Conv2d(256, 768, kernel_size=1)
        self.attention.out = nn.Conv2d(256, 256, kernel_size=1)
        self.up: Any = nn.ModuleList(nn.Module() for _ in range(2))
        self.up[0].norm1 = nn.GroupNorm(8, 512)
        self.up[0].conv1 = nn.Conv2d(512, 128, kernel_size=3, padding=1)
        self.up[0].time = nn.Linear(256, 128)
        self.up[0].norm2 = nn.GroupNorm(8, 128)
        self.up[0].conv2 = nn.Conv2d(128, 128, kernel_size=3, padding=1)
        self.up[0].skip = nn.Conv2d(512, 128, kernel_size=1)
        self.up[1].norm1 = nn.GroupNorm(8, 256)
        self.up[1].conv1 = nn.Conv2d(256, 64, kernel_size=3, padding=1)
        self.up[1].time = nn.Linear(256, 64)
        self.up[1].norm2 = nn.GroupNorm(8, 64)
        self.up[1].conv2 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.up[1].skip = nn.Conv2d(256, 64, kernel_size=1)

    def forward(self, hidden_1, time_1, hidden_2, hidden_3):
        # attention (examples/unet.py:54)
        flatten = self.attention.query_key_value(self.attention.norm(hidden_1)).flatten(2)
        query, key, value = flatten.unflatten(1, [3, 4, -1]).transpose(-1, -2).unbind(1)
        attention = F.scaled_dot_product_attention(query, key, value)
        out = self.attention.out(attention.transpose(-1, -2).flatten(1, 2).unflatten(-1, [8, 8]))
        total = hidden_1 + out
        # middle.1 (examples/unet.py:37)
        hidden = self.middle["1"].conv1(F.silu(self.middle["1"].norm1(total)))
        hidden = hidden + self.middle["1"].time(F.silu(time_1))[..., None, None]
        hidden = self.middle["1"].conv2(F.silu(self.middle["1"].norm2(hidden)))
        hidden = hidden + total
        # the model itself (examples/unet.py:89)
        hidden = F.interpolate(hidden, scale_factor=2.0)
        joined = torch.cat([hidden, hidden_2], 1)
        # up.0 (examples/unet.py:37)
        hidden = self.up[0].conv1(F.silu(self.up[0].norm1(joined)))
        hidden = hidden + self.up[0].time(F.silu(time_1))[..., None, None]
        hidden = self.up[0].conv2(F.silu(self.up[0].norm2(hidden)))
        hidden = hidden + self.up[0].skip(joined)
        # the model itself (examples/unet.py:89)
        hidden = F.interpolate(hidden, scale_factor=2.0)
        joined = torch.cat([hidden, hidden_3], 1)
        del hidden_3
        # up.1 (examples/unet.py:37)
        hidden = self.up[1].conv1(F.silu(self.up[1].norm1(joined)))
        hidden = hidden + self.up[1].time(F.silu(time_1))[..., None, None]
        hidden = self.up[1].conv2(F.silu(self.up[1].norm2(hidden)))
        hidden_4 = hidden + self.up[1].skip(joined)
        return (hidden_4,)

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
