"""unet, stage 0 of 4, for cpu.

takes    image: float32[batch, 3, 64, 64], an input of the model
takes    time: int64[batch], an input of the model
returns  silu: float32[batch, 128, 32, 32], to stage 1
returns  hidden: float32[batch, 64, 32, 32], to stage 1
returns  time_1: float32[batch, 256], to stage 1 and stage 2 and stage 3
returns  hidden_5: float32[batch, 64, 64, 64], to stage 3
holds    26 parameters, 1.2 MiB
alone    Stage0.load("stage_0.safetensors", device="cpu")(image, time)
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
    "image": (None, torch.float32, ("batch", 3, 64, 64)),
    "time": (None, torch.int64, ("batch",)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "silu": ([1], [], torch.float32, ("batch", 128, 32, 32)),
    "hidden": ([1], [], torch.float32, ("batch", 64, 32, 32)),
    "time_1": ([1, 2, 3], [], torch.float32, ("batch", 256)),
    "hidden_5": ([3], [], torch.float32, ("batch", 64, 64, 64)),
}


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.ModuleDict({"0": nn.Linear(64, 256), "2": nn.Linear(256, 256)})
        self.first = nn.Conv2d(3, 64, kernel_size=3, padding=1)
        self.down: Any = nn.ModuleList(nn.Module() for _ in range(2))
        self.down[0].norm1 = nn.GroupNorm(8, 64)
        self.down[0].conv1 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.down[0].time = nn.Linear(256, 64)
        self.down[0].norm2 = nn.GroupNorm(8, 64)
        self.down[0].conv2 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.down[1].norm1 = nn.GroupNorm(8, 64)
        self.down[1].conv1 = nn.Conv2d(64, 128, kernel_size=3, padding=1)
        self.down[1].time = nn.Linear(256, 128)
        self.down[1].norm2 = nn.GroupNorm(8, 128)
        self.shrink = nn.ModuleList([nn.Conv2d(64, 64, kernel_size=3, stride=2, padding=1)])

    def forward(self, image, time):
        device = image.device
        # the model itself (examples/unet.py:79)
        frequencies = (torch.arange(32, device=device).to(torch.float32) * -9.210340371976184 / 32).exp()
        angles = time.unsqueeze(1) * frequencies
        embed = F.silu(self.embed["0"](torch.cat([angles.sin(), angles.cos()], -1)))
        time_1 = self.embed["2"](embed)
        hidden = self.first(image)
        # down.0 (examples/unet.py:37)
        conv1 = self.down[0].conv1(F.silu(self.down[0].norm1(hidden)))
        hidden_2 = conv1 + self.down[0].time(F.silu(time_1))[..., None, None]
        conv2 = self.down[0].conv2(F.silu(self.down[0].norm2(hidden_2)))
        hidden_5 = conv2 + hidden
        del conv2
        # the model itself (examples/unet.py:85)
        hidden = self.shrink[0](hidden_5)
        # down.1 (examples/unet.py:37)
        conv1 = self.down[1].conv1(F.silu(self.down[1].norm1(hidden)))
        hidden_2 = conv1 + self.down[1].time(F.silu(time_1))[..., None, None]
        silu = F.silu(self.down[1].norm2(hidden_2))
        return (silu, hidden, time_1, hidden_5)

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
