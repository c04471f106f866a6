"""gpt2, stage 1 of 2, for cpu.

takes    attention_mask: int64[batch, seq], an input of the model
takes    hidden_states: float32[batch, seq, 768], from stage 0
returns  logits: float32[batch, seq, 50257], to output 0 of the model
holds    45 parameters, 246.4 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, hidden_states)
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
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "hidden_states": (0, torch.float32, ("batch", "seq", 768)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"logits": ([], [0], torch.float32, ("batch", "seq", 50257))}


class GPT2MLP(nn.Module):  # transformer.h.8.mlp (transformers/models/gpt2/modeling_gpt2.py:239)
    def __init__(self):
        super().__init__()
        self.c_fc: Any = nn.Module()
        self.c_fc.weight = nn.Parameter(torch.empty(768, 3072))
        self.c_fc.bias = nn.Parameter(torch.empty(3072))
        self.c_proj: Any = nn.Module()
        self.c_proj.weight = nn.Parameter(torch.empty(3072, 768))
        self.c_proj.bias = nn.Parameter(torch.empty(768))

    def forward(self, hidden_states):
        batch, seq = hidden_states.shape[:2]
        # c_fc (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.c_fc.bias, hidden_states.view(-1, 768), self.c_fc.weight).view(batch, seq, 3072)
        # act (transformers/activations.py:66)
        hidden_states = x * 0.5 * (((x + x**3.0 * 0.044715) * math.sqrt(2 / math.pi)).tanh() + 1.0)
        # c_proj (transformers/pytorch_utils.py:120)
        return torch.addmm(self.c_proj.bias, hidden_states.view(-1, 3072), self.c_proj.weight).view(batch, seq, 768)


class GPT2Block(nn.Module):  # transformer.h.9 (transformers/models/gpt2/modeling_gpt2.py:273)
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(768)
        self.attn: Any = nn.Module()
        self.attn.c_attn = nn.Module()
        self.attn.c_attn.weight = nn.Parameter(torch.empty(768, 2304))
        self.attn.c_attn.bias = nn.Parameter(torch.empty(2304))
        self.attn.c_proj = nn.Module()
        self.attn.c_proj.weight = nn.Parameter(torch.empty(768, 768))
        self.attn.c_proj.bias = nn.Parameter(torch.empty(768))
        self.ln_2 = nn.LayerNorm(768)
        self.mlp = GPT2MLP()

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_states, causal_mask):
        batch, seq = hidden_states.shape[:2]
        residual = hidden_states
        hidden_states = self.ln_1(hidden_states)
        # attn.c_attn (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.attn.c_attn.bias, hidden_states.view(-1, 768), self.attn.c_attn.weight).view(
            batch, seq, 2304
        )
        # attn (transformers/models/gpt2/modeling_gpt2.py:185)
        query_states, key_states, value_states = x.split(768, 2)
        del x
        key_states = key_states.view(batch, seq, -1, 64).transpose(1, 2)
        value_states = value_states.view(batch, seq, -1, 64).transpose(1, 2)
        query_states = query_states.view(batch, seq, -1, 64).transpose(1, 2)
        attn_output = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=causal_mask, scale=0.125
        )
        attn_output = attn_output.transpose(1, 2).reshape(batch, seq, -1)
        # attn.c_proj (transformers/pytorch_utils.py:120)
        x = torch.addmm(self.attn.c_proj.bias, attn_output.view(-1, 768), self.attn.c_proj.weight).view(batch, seq, 768)
        # transformers/models/gpt2/modeling_gpt2.py:282
        hidden_states = x + residual
        residual = hidden_states
        hidden_states = self.ln_2(hidden_states)
        x = self.mlp(hidden_states)
        return residual + x


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer: Any = nn.Module()
        self.transformer.h = nn.ModuleDict({"8": nn.Module(), **{str(i): GPT2Block() for i in range(9, 12)}})
        self.transformer.h["8"].ln_2 = nn.LayerNorm(768)
        self.transformer.h["8"].mlp = GPT2MLP()
        self.transformer.ln_f = nn.LayerNorm(768)
        self.lm_head = nn.Linear(768, 50257, bias=False)

    def forward(self, attention_mask, hidden_states):
        batch, seq = attention_mask.shape
        device = attention_mask.device
        # transformer (transformers/models/gpt2/modeling_gpt2.py:583)
        attention_mask = attention_mask.view(batch, -1).to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(seq, device=device)[None, None, :, None]
        kv_indices = torch.arange(seq, device=device)[None, None, None, :]
        causal_mask = ((kv_indices <= q_indices) & attention_mask[batch_indices, kv_indices]).expand(
            batch, -1, seq, seq
        )
        # transformer.h.8 (transformers/models/gpt2/modeling_gpt2.py:304)
        residual = hidden_states
        hidden_states = self.transformer.h["8"].ln_2(hidden_states)
        x = self.transformer.h["8"].mlp(hidden_states)
        hidden_states = residual + x
        for block in list(self.transformer.h.values())[1:]:
            # transformer (transformers/models/gpt2/modeling_gpt2.py:608)
            hidden_states = block(hidden_states, causal_mask)
        hidden_states = self.transformer.ln_f(hidden_states).view(-1, seq, 768)
        # the model itself (transformers/models/gpt2/modeling_gpt2.py:697)
        logits = self.lm_head(hidden_states)
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
