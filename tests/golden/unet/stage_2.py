"""unet, stage 2 of 4, for cpu.

takes    hidden_4: float32[batch, 256, 8, 8], from stage 1
takes    hidden_5: float32[batch, 256, 1, 1], from stage 0
takes    hidden_6: float32[batch, 256, 16, 16], from stage 1
takes    hidden_7: float32[batch, 128, 1, 1], from stage 0
takes    hidden_8: float32[batch, 128, 32, 32], from stage 1
takes    hidden_9: float32[batch, 64, 1, 1], from stage 0
returns  hidden_10: float32[batch, 64, 32, 32], to stage 3
holds    34 parameters, 9.3 MiB

Alone:   Stage2.load("stage_2.safetensors", device="cpu")(hidden_4, hidden_5, hidden_6, hidden_7, hidden_8, hidden_9)
"""

import ctypes
import json
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "hidden_4": (1, torch.float32, ("batch", 256, 8, 8)),
    "hidden_5": (0, torch.float32, ("batch", 256, 1, 1)),
    "hidden_6": (1, torch.float32, ("batch", 256, 16, 16)),
    "hidden_7": (0, torch.float32, ("batch", 128, 1, 1)),
    "hidden_8": (1, torch.float32, ("batch", 128, 32, 32)),
    "hidden_9": (0, torch.float32, ("batch", 64, 1, 1)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "hidden_10": ([3], [], torch.float32, ("batch", 64, 32, 32)),
}


class Numbered(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]


class Stage2(nn.Module):
    def __init__(self):
        super().__init__()
        self.middle: Any = Numbered({1: nn.Module()})
        self.middle[1].norm1 = nn.GroupNorm(8, 256)
        self.middle[1].conv1 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.middle[1].norm2 = nn.GroupNorm(8, 256)
        self.middle[1].conv2 = nn.Conv2d(256, 256, kernel_size=3, padding=1)
        self.attention: Any = nn.Module()
        self.attention.norm = nn.GroupNorm(8, 256)
        self.attention.query_key_value = nn.Conv2d(256, 768, kernel_size=1)
        self.attention.out = nn.Conv2d(256, 256, kernel_size=1)
        self.up: Any = nn.ModuleList(nn.Module() for _ in range(2))
        self.up[0].norm1 = nn.GroupNorm(8, 512)
        self.up[0].conv1 = nn.Conv2d(512, 128, kernel_size=3, padding=1)
        self.up[0].norm2 = nn.GroupNorm(8, 128)
        self.up[0].conv2 = nn.Conv2d(128, 128, kernel_size=3, padding=1)
        self.up[0].skip = nn.Conv2d(512, 128, kernel_size=1)
        self.up[1].norm1 = nn.GroupNorm(8, 256)
        self.up[1].conv1 = nn.Conv2d(256, 64, kernel_size=3, padding=1)
        self.up[1].norm2 = nn.GroupNorm(8, 64)
        self.up[1].conv2 = nn.Conv2d(64, 64, kernel_size=3, padding=1)
        self.up[1].skip = nn.Conv2d(256, 64, kernel_size=1)

    def forward(self, hidden_4, hidden_5, hidden_6, hidden_7, hidden_8, hidden_9):
        # attention (examples/unet.py:54)
        heads = self.attention.query_key_value(self.attention.norm(hidden_4)).flatten(2)
        query, key, value = heads.unflatten(1, [3, 4, -1]).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)
        out = self.attention.out(attended.transpose(-1, -2).flatten(1, 2).unflatten(-1, [8, 8]))
        hidden = hidden_4 + out
        # middle.1 (examples/unet.py:37)
        conv1 = self.middle[1].conv1(F.silu(self.middle[1].norm1(hidden)))
        total = conv1 + hidden_5
        conv2 = self.middle[1].conv2(F.silu(self.middle[1].norm2(total)))
        hidden = conv2 + hidden
        # the model itself (examples/unet.py:89)
        hidden = F.interpolate(hidden, scale_factor=2.0)
        hidden = torch.cat([hidden, hidden_6], 1)
        # up.0 (examples/unet.py:37)
        conv1 = self.up[0].conv1(F.silu(self.up[0].norm1(hidden)))
        total = conv1 + hidden_7
        conv2 = self.up[0].conv2(F.silu(self.up[0].norm2(total)))
        hidden = conv2 + self.up[0].skip(hidden)
        # the model itself (examples/unet.py:89)
        hidden = F.interpolate(hidden, scale_factor=2.0)
        hidden = torch.cat([hidden, hidden_8], 1)
        del hidden_8
        # up.1 (examples/unet.py:37)
        conv1 = self.up[1].conv1(F.silu(self.up[1].norm1(hidden)))
        total = conv1 + hidden_9
        conv2 = self.up[1].conv2(F.silu(self.up[1].norm2(total)))
        hidden = conv2 + self.up[1].skip(hidden)
        return (hidden,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        read_weights(stage, path, device)
        return stage.eval()


def read_weights(stage, path, device):
    """Give a stage made on the meta device its weights, a piece at a time by way of memory that GPUs copy from fast."""
    room = torch.empty(1 << 24, dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")
    memory = memoryview((ctypes.c_byte * len(room)).from_address(room.data_ptr())).cast("B")
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, empty in [*stage.named_parameters(), *stage.named_buffers()]:
            tensor = torch.empty(empty.shape, dtype=empty.dtype, device=device)
            first, last = table[name]["data_offsets"]
            file.seek(start + first)
            for piece in tensor.view(-1).view(torch.uint8).split(len(room)):
                if last - first != tensor.nbytes or file.readinto(memory[: len(piece)]) != len(piece):
                    raise ValueError(f"{name} is not whole in {path}")
                piece.copy_(room[: len(piece)])
            tensor = nn.Parameter(tensor, empty.requires_grad) if isinstance(empty, nn.Parameter) else tensor
            torch.utils.swap_tensors(empty, tensor)
