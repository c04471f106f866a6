"""tied_lm, stage 1 of 2, for cpu.

takes    total: float32[batch, seq, 256], from stage 0
returns  head: float32[batch, seq, 8000], to output 0 of the model
holds    27 parameters, 13.8 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(total)
"""

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {"total": (0, torch.float32, ("batch", "seq", 256))}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"head": ([], [0], torch.float32, ("batch", "seq", 8000))}


class Numbered(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]


class Sequential(Numbered):  # blocks.4.feed_forward
    def __init__(self):
        super().__init__({0: nn.Linear(256, 1024), 2: nn.Linear(1024, 256)})

    def forward(self, hidden):
        feed_forward = self[0](hidden)
        feed_forward = F.gelu(feed_forward)
        return self[2](feed_forward)


class Block(nn.Module):  # blocks.4 (examples/tied_lm.py:26)
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(256)
        self.query_key_value = nn.Linear(256, 768)
        self.out = nn.Linear(256, 256)
        self.norm2 = nn.LayerNorm(256)
        self.feed_forward = Sequential()

    def forward(self, hidden):
        heads = self.query_key_value(self.norm1(hidden)).unflatten(-1, [3, 8, -1])
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(attended.transpose(1, 2).flatten(2))
        return hidden + self.feed_forward(self.norm2(hidden))


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(256, 8000, bias=False)
        self.blocks = nn.ModuleDict({str(i): Block() for i in range(4, 6)})
        self.norm = nn.LayerNorm(256)

    def forward(self, total):
        # the model itself (examples/tied_lm.py:49)
        blocks = self.blocks["4"](total)
        hidden = self.blocks["5"](blocks)
        head = self.head(self.norm(hidden))
        return (head,)

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
