"""Tiny, stage 0 of 2, for cpu.

takes    x: float32[batch, 2], an input of the model
returns  x_1: float32[batch, 2], to stage 1
holds    2 parameters, 24 B

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(x)
"""

import ctypes
import json

import torch
from torch import nn

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "x": (None, torch.float32, ("batch", 2)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "x_1": ([1], [], torch.float32, ("batch", 2)),
}


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)

    def forward(self, x):
        # the model itself (old.py:10)
        x_1 = self.first(x)
        return (x_1,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        read_weights(stage, path, device)
        return stage.eval()


FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(stage, path, device):
    """Give a stage made on the meta device its weights, a piece at a time by way of memory that GPUs copy from fast."""
    room = torch.empty(1 << 24, dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")
    memory = memoryview((ctypes.c_byte * len(room)).from_address(room.data_ptr())).cast("B")
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, empty in [*stage.named_parameters(), *stage.named_buffers()]:
            dtype = FLOATS.get(table[name]["dtype"], empty.dtype)  # modules take torch's default, which may be another
            tensor = torch.empty(empty.shape, dtype=dtype, device=device)
            first, last = table[name]["data_offsets"]
            file.seek(start + first)
            for piece in tensor.view(-1).view(torch.uint8).split(len(room)):
                if last - first != tensor.nbytes or file.readinto(memory[: len(piece)]) != len(piece):
                    raise ValueError(f"{name} is not whole in {path}")
                piece.copy_(room[: len(piece)])
            tensor = nn.Parameter(tensor, empty.requires_grad) if isinstance(empty, nn.Parameter) else tensor
            torch.utils.swap_tensors(empty, tensor)
