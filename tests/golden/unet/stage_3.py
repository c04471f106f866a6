"""unet, stage 3 of 4, for cpu.

takes    hidden_4: float32[batch, 64, 32, 32], from stage 2
takes    hidden_5: float32[batch, 64, 64, 64], from stage 0
takes    time_1: float32[batch, 256], from stage 0
returns  last: float32[batch, 3, 64, 64], to output 0 of the model
holds    16 parameters, 537.8 KiB
alone    Stage3.load("stage_3.safetensors", device="cpu")(hidden_4, hidden_5, time_1)
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
    "hidden_4": (2, torch.float32, ("batch", 64, 32, 32)),
    "hidden_5": (0, torch.float32, ("batch", 64, 64, 64)),
    "time_1": (0, torch.float32, ("batch", 256)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"last": ([], [0], torch.float32, ("batch", 3, 64, 64))}


class Stage3(nn.Module):
    def __init__(self):
        super().__init__()
        self.up: Any = nn.ModuleDict({"2": nn.Module()})
        self.up["2"].norm1 = nn.GroupNorm(8, 128)
        self.up["2"].conv1 = nn.Conv2d(128, 64, kernel_size=3, padding=1)
        self.up["2"].time = nn.Linear(256, 64)
        self.up["2"].norm2 = nn.GroupNorm(8, 64)
        self.up["2"].conv2 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.up["2"].skip = nn.Conv2d(128, 64, kernel_size=1)
        self.norm = nn.GroupNorm(8, 64)
        self.last = nn.Conv2d(64, 3, kernel_size=3, padding=1)

    def forward(self, hidden_4, hidden_5, time_1):
        # the model itself (examples/unet.py:89)
        hidden = F.interpolate(hidden_4, scale_factor=2.0)
        joined = torch.cat([hidden, hidden_5], 1)
        del hidden_5
        # up.2 (examples/unet.py:37)
        hidden = self.up["2"].conv1(F.silu(self.up["2"].norm1(joined)))
        hidden = hidden + self.up["2"].time(F.silu(time_1))[..., None, None]
        hidden = self.up["2"].conv2(F.silu(self.up["2"].norm2(hidden)))
        hidden = hidden + self.up["2"].skip(joined)
        # the model itself (examples/unet.py:91)
        last = self.last(F.silu(self.norm(hidden)))
        return (last,)

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
