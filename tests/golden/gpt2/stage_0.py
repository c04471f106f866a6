"""gpt2, stage 0 of 2, for cpu.

takes    input_ids: int64[batch, seq], an input of the model
takes    attention_mask: int64[batch, seq], an input of the model
returns  hidden_states: float32[batch, seq, 768], to stage 1
holds    104 parameters, 375.6 MiB
alone    Stage0.load("stage_0.safetensors", device="cpu")(input_ids, attention_mask)
"""

import ctypes
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "input_ids": (None, torch.int64, ("batch", "seq")),
    "attention_mask": (None, torch.int64, ("batch", "seq")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"hidden_states": ([1], [], torch.float32, ("batch", "seq", 768))}


class Numbered(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]


class GPT2Attention(nn.Module):  # transformer.h.0.attn (transformers/models/gpt2/modeling_gpt2.py:185)
    def __init__(self):
        super().__init__()
        self.c_attn: Any = nn.Module()
        self.c_attn.weight = nn.Parameter(torch.empty(768, 2304))
        self.c_attn.bias = nn.Parameter(torch.empty(2304))
        self.c_proj: Any = nn.Module()
        self.c_proj.weight = nn.Parameter(torch.empty(768, 768))
        self.c_proj.bias = nn.Parameter(torch.empty(768))

    def forward(self, hidden_states, causal_mask):
        batch, seq = hidden_states.shape[:2]
        # c_attn (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.c_attn.bias, hidden_states.view(-1, 768), self.c_attn.weight).view(batch, seq, 2304)
        # transformers/models/gpt2/modeling_gpt2.py:185
        query_states, key_states, value_states = x.split(768, 2)
        del x
        key_states = key_states.view(batch, seq, -1, 64).transpose(1, 2)
        value_states = value_states.view(batch, seq, -1, 64).transpose(1, 2)
        query_states = query_states.view(batch, seq, -1, 64).transpose(1, 2)
        attn_output = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=causal_mask, scale=0.125
        )
        attn_output = attn_output.transpose(1, 2).reshape(batch, seq, -1)
        # c_proj (transformers/pytorch_utils.py:120)
        return torch.addmm(self.c_proj.bias, attn_output.view(-1, 768), self.c_proj.weight).view(batch, seq, 768)


class GPT2Block(nn.Module):  # transformer.h.0 (transformers/models/gpt2/modeling_gpt2.py:273)
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(768)
        self.attn = GPT2Attention()
        self.ln_2 = nn.LayerNorm(768)
        self.mlp: Any = nn.Module()
        self.mlp.c_fc = nn.Module()
        self.mlp.c_fc.weight = nn.Parameter(torch.empty(768, 3072))
        self.mlp.c_fc.bias = nn.Parameter(torch.empty(3072))
        self.mlp.c_proj = nn.Module()
        self.mlp.c_proj.weight = nn.Parameter(torch.empty(3072, 768))
        self.mlp.c_proj.bias = nn.Parameter(torch.empty(768))

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_states, causal_mask):
        batch, seq = hidden_states.shape[:2]
        residual = hidden_states
        hidden_states = self.ln_1(hidden_states)
        x = self.attn(hidden_states, causal_mask)
        hidden_states = x + residual
        residual = hidden_states
        hidden_states = self.ln_2(hidden_states)
        # mlp.c_fc (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.mlp.c_fc.bias, hidden_states.view(-1, 768), self.mlp.c_fc.weight).view(batch, seq, 3072)
        # mlp.act (transformers/activations.py:66)
        hidden_states = x * 0.5 * (((x + x**3.0 * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1.0)
        # mlp.c_proj (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.mlp.c_proj.bias, hidden_states.view(-1, 3072), self.mlp.c_proj.weight).view(
            batch, seq, 768
        )
        # transformers/models/gpt2/modeling_gpt2.py:307
        return residual + x


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer: Any = nn.Module()
        self.transformer.h = Numbered({**{i: GPT2Block() for i in range(0, 8)}, 8: nn.Module()})
        self.transformer.h[8].ln_1 = nn.LayerNorm(768)
        self.transformer.h[8].attn = GPT2Attention()
        self.transformer.wte = nn.Embedding(50257, 768)
        self.transformer.wpe = nn.Embedding(1024, 768)

    def forward(self, input_ids, attention_mask):
        batch, seq = input_ids.shape
        device = input_ids.device
        # transformer (transformers/models/gpt2/modeling_gpt2.py:569)
        inputs_embeds = self.transformer.wte(input_ids.view(-1, seq))
        position_embeds = self.transformer.wpe(torch.arange(seq, device=device).unsqueeze(0))
        hidden_states = inputs_embeds + position_embeds
        del inputs_embeds, position_embeds
        attention_mask = attention_mask.view(batch, -1).to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(seq, device=device)[None, None, :, None]
        kv_indices = torch.arange(seq, device=device)[None, None, None, :]
        causal_mask = ((kv_indices <= q_indices) & attention_mask[batch_indices, kv_indices]).expand(
            batch, -1, seq, seq
        )
        for block in self.transformer.h[0:8]:
            hidden_states = block(hidden_states, causal_mask)
        # transformer.h.8 (transformers/models/gpt2/modeling_gpt2.py:273)
        residual = hidden_states
        hidden_states = self.transformer.h[8].ln_1(hidden_states)
        x = self.transformer.h[8].attn(hidden_states, causal_mask)
        hidden_states = x + residual
        return (hidden_states,)

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
