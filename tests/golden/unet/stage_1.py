"""unet, stage 1 of 4, for cpu.

takes    silu: float32[batch, 128, 32, 32], from stage 0
takes    hidden: float32[batch, 64, 32, 32], from stage 0
takes    time_1: float32[batch, 256], from stage 0
returns  hidden_1: float32[batch, 256, 8, 8], to stage 2
returns  hidden_2: float32[batch, 256, 16, 16], to stage 2
returns  hidden_3: float32[batch, 128, 32, 32], to stage 2
holds    30 parameters, 11.9 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(silu, hidden, time_1)
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
    "silu": (0, torch.float32, ("batch", 128, 32, 32)),
    "hidden": (0, torch.float32, ("batch", 64, 32, 32)),
    "time_1": (0, torch.float32, ("batch", 256)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "hidden_1": ([2], [], torch.float32, ("batch", 256, 8, 8)),
    "hidden_2": ([2], [], torch.float32, ("batch", 256, 16, 16)),
    "hidden_3": ([2], [], torch.float32, ("batch", 128, 32, 32)),
}


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.down: Any = nn.ModuleDict({str(i): nn.Module() for i in range(1, 3)})
        self.down["1"].conv2 = nn.Conv2d(128, 128, kernel_size=3, padding=1)
        self.down["1"].skip = nn.Conv2d(64, 128, kernel_size=1)
        self.down["2"].norm1 = nn.GroupNorm(8, 128)
        self.down["2"].conv1 = nn.Conv2d(128, 256, kernel_size=3, padding=1)
        self.down["2"].time = nn.Linear(256, 256)
        self.down["2"].norm2 = nn.GroupNorm(8, 256)
        self.down["2"].conv2 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.down["2"].skip = nn.Conv2d(128, 256, kernel_size=1)
        self.shrink = nn.ModuleDict(
            {
                "1": nn.Conv2d(128, 128, kernel_size=3, stride=2, padding=1),
                "2": nn.Conv2d(256, 256, kernel_size=3, stride=2, padding=1),
            }
        )
        self.middle: Any = nn.ModuleList([nn.Module()])
        self.middle[0].norm1 = nn.GroupNorm(8, 256)
        self.middle[0].conv1 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.middle[0].time = nn.Linear(256, 256)
        self.middle[0].norm2 = nn.GroupNorm(8, 256)
        self.middle[0].conv2 = nn.Conv2d(256, 256, kernel_size=3, padding=1)

    def forward(self, silu, hidden, time_1):
        # down.1 (examples/unet.py:39)
        conv2 = self.down["1"].conv2(silu)
        del silu
        hidden_3 = conv2 + self.down["1"].skip(hidden)
        # the model itself (examples/unet.py:85)
        hidden = self.shrink["1"](hidden_3)
        # down.2 (examples/unet.py:37)
        conv1 = self.down["2"].conv1(F.silu(self.down["2"].norm1(hidden)))
        hidden_2 = conv1 + self.down["2"].time(F.silu(time_1))[..., None, None]
        conv2 = self.down["2"].conv2(F.silu(self.down["2"].norm2(hidden_2)))
        hidden_2 = conv2 + self.down["2"].skip(hidden)
        # the model itself (examples/unet.py:85)
        hidden = self.shrink["2"](hidden_2)
        # middle.0 (examples/unet.py:37)
        conv1 = self.middle[0].conv1(F.silu(self.middle[0].norm1(hidden)))
        hidden_4 = conv1 + self.middle[0].time(F.silu(time_1))[..., None, None]
        conv2 = self.middle[0].conv2(F.silu(self.middle[0].norm2(hidden_4)))
        hidden_1 = conv2 + hidden
        return (hidden_1, hidden_2, hidden_3)

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
