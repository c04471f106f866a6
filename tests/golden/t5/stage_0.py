"""t5, stage 0 of 3, for cpu.

takes    input_ids: int64[batch, source], an input of the model
takes    attention_mask: int64[batch, source], an input of the model
returns  hidden_states: float32[batch, source, 512], to stage 1
holds    42 parameters, 122.8 MiB
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
    "input_ids": (None, torch.int64, ("batch", "source")),
    "attention_mask": (None, torch.int64, ("batch", "source")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"hidden_states": ([1], [], torch.float32, ("batch", "source", 512))}


class Numbered(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]


class T5LayerNorm(nn.Module):  # encoder.block.0.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(512))

    def forward(self, hidden_states):
        variance = (hidden_states**2).mean(-1, keepdim=True)
        hidden_states = hidden_states * (variance + 1e-06).rsqrt()
        return self.weight * hidden_states


class T5Block(nn.Module):  # encoder.block.0 (transformers/models/t5/modeling_t5.py:459)
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList(nn.Module() for _ in range(2))
        self.layer[0].SelfAttention = nn.Module()
        self.layer[0].SelfAttention.q = nn.Linear(512, 512, bias=False)
        self.layer[0].SelfAttention.k = nn.Linear(512, 512, bias=False)
        self.layer[0].SelfAttention.v = nn.Linear(512, 512, bias=False)
        self.layer[0].SelfAttention.o = nn.Linear(512, 512, bias=False)
        self.layer[0].layer_norm = T5LayerNorm()
        self.layer[1].DenseReluDense = nn.Module()
        self.layer[1].DenseReluDense.wi = nn.Linear(512, 2048, bias=False)
        self.layer[1].DenseReluDense.wo = nn.Linear(2048, 512, bias=False)
        self.layer[1].layer_norm = T5LayerNorm()

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_states, attention_mask, position_bias):
        batch, source = hidden_states.shape[:2]
        # layer.0 (transformers/models/t5/modeling_t5.py:392)
        normed_hidden_states = self.layer[0].layer_norm(hidden_states)
        # layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        query_states = self.layer[0].SelfAttention.q(normed_hidden_states).view(batch, source, -1, 64).transpose(1, 2)
        key_states = self.layer[0].SelfAttention.k(normed_hidden_states).view(batch, source, -1, 64).transpose(1, 2)
        value_states = self.layer[0].SelfAttention.v(normed_hidden_states).view(batch, source, -1, 64).transpose(1, 2)
        position_bias_mask = torch.where(attention_mask, position_bias, torch.finfo(torch.float32).min)
        attn_output = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=position_bias_mask, scale=1.0
        )
        attn_output = self.layer[0].SelfAttention.o(attn_output.transpose(1, 2).reshape(batch, source, -1))
        # layer.0 (transformers/models/t5/modeling_t5.py:400)
        attention_output = hidden_states + attn_output
        # layer.1 (transformers/models/t5/modeling_t5.py:138)
        forwarded_states = self.layer[1].layer_norm(attention_output)
        # layer.1.DenseReluDense (transformers/models/t5/modeling_t5.py:84)
        hidden_states = self.layer[1].DenseReluDense.wi(forwarded_states)
        hidden_states = F.relu(hidden_states)
        hidden_states = self.layer[1].DenseReluDense.wo(hidden_states)
        # layer.1 (transformers/models/t5/modeling_t5.py:140)
        return attention_output + hidden_states


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder: Any = nn.Module()
        self.encoder.embed_tokens = nn.Embedding(32128, 512)
        self.encoder.block = Numbered({i: T5Block() for i in range(0, 5)})
        self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias = nn.Embedding(32, 8)

    def forward(self, input_ids, attention_mask):
        batch, source = input_ids.shape
        device = input_ids.device
        # encoder (transformers/models/t5/modeling_t5.py:678)
        hidden_states = self.encoder.embed_tokens(input_ids)
        attention_mask = attention_mask.to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(source, device=device)[None, None, :, None]
        kv_indices = torch.arange(source, device=device)[None, None, None, :]
        attention_mask = ((q_indices >= 0) & attention_mask[batch_indices, kv_indices]).expand(
            batch, -1, source, source
        )
        # encoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
        context_position = torch.arange(source, dtype=torch.int64, device=device).unsqueeze(1)
        relative_position = torch.arange(source, dtype=torch.int64, device=device).unsqueeze(0) - context_position
        relative_buckets = (relative_position > 0).to(torch.int64) * 16
        relative_position = relative_position.abs()
        is_small = relative_position < 8
        relative_position_if_large = ((relative_position.to(torch.float32) / 8).log() / math.log(16) * 8).to(
            torch.int64
        ) + 8
        masked = torch.where(
            is_small,
            relative_position,
            torch.min(relative_position_if_large, torch.full_like(relative_position_if_large, 15)),
        )
        relative_attention_bias = (
            self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias(relative_buckets + masked)
        )
        position_bias = relative_attention_bias.permute(2, 0, 1).unsqueeze(0)
        for block in self.encoder.block:
            # encoder (transformers/models/t5/modeling_t5.py:728)
            hidden_states = block(hidden_states, attention_mask, position_bias)
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
