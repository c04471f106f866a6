"""t5, stage 1 of 3, for cpu.

takes    attention_mask: int64[batch, source], an input of the model
takes    decoder_input_ids: int64[batch, target], an input of the model
takes    hidden_states: float32[batch, source, 512], from stage 0
returns  attention_output: float32[batch, target, 512], to stage 2
returns  hidden_states_1: float32[batch, source, 512], to stage 2 and output 1 of the model
holds    69 parameters, 142.8 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, decoder_input_ids, hidden_states)
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
    "attention_mask": (None, torch.int64, ("batch", "source")),
    "decoder_input_ids": (None, torch.int64, ("batch", "target")),
    "hidden_states": (0, torch.float32, ("batch", "source", 512)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "attention_output": ([2], [], torch.float32, ("batch", "target", 512)),
    "hidden_states_1": ([2], [1], torch.float32, ("batch", "source", 512)),
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


class T5LayerNorm(nn.Module):  # encoder.final_layer_norm (transformers/models/t5/modeling_t5.py:65)
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(512))

    def forward(self, hidden_states):
        variance = (hidden_states**2).mean(-1, keepdim=True)
        hidden_states = hidden_states * (variance + 1e-06).rsqrt()
        return self.weight * hidden_states


class T5Attention(nn.Module):  # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(512, 512, bias=False)
        self.k = nn.Linear(512, 512, bias=False)
        self.v = nn.Linear(512, 512, bias=False)
        self.o = nn.Linear(512, 512, bias=False)

    def forward(self, hidden_states, hidden_states_1, encoder_extended_attention_mask, cross_attn_position_bias):
        batch, target = hidden_states.shape[:2]
        source = hidden_states_1.shape[1]
        query_states = self.q(hidden_states).view(batch, target, -1, 64).transpose(1, 2)
        key_states = self.k(hidden_states_1).view(batch, source, -1, 64).transpose(1, 2)
        value_states = self.v(hidden_states_1).view(batch, source, -1, 64).transpose(1, 2)
        position_bias_mask = torch.where(
            encoder_extended_attention_mask, cross_attn_position_bias, torch.finfo(torch.float32).min
        )
        attn_output = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=position_bias_mask, scale=1.0
        )
        return self.o(attn_output.transpose(1, 2).reshape(batch, target, -1))


class T5LayerSelfAttention(nn.Module):  # encoder.block.5.layer.0 (transformers/models/t5/modeling_t5.py:392)
    def __init__(self):
        super().__init__()
        self.SelfAttention = T5Attention()
        self.layer_norm = T5LayerNorm()

    def forward(self, hidden_states, attention_mask, position_bias):
        normed_hidden_states = self.layer_norm(hidden_states)
        attention_output = self.SelfAttention(normed_hidden_states, normed_hidden_states, attention_mask, position_bias)
        return hidden_states + attention_output


class T5LayerFF(nn.Module):  # encoder.block.5.layer.1 (transformers/models/t5/modeling_t5.py:138)
    def __init__(self):
        super().__init__()
        self.DenseReluDense: Any = nn.Module()
        self.DenseReluDense.wi = nn.Linear(512, 2048, bias=False)
        self.DenseReluDense.wo = nn.Linear(2048, 512, bias=False)
        self.layer_norm = T5LayerNorm()

    def forward(self, hidden_states):
        forwarded_states = self.layer_norm(hidden_states)
        # DenseReluDense (transformers/models/t5/modeling_t5.py:84)
        wi = self.DenseReluDense.wi(forwarded_states)
        act = F.relu(wi)
        forwarded_states = self.DenseReluDense.wo(act)
        # transformers/models/t5/modeling_t5.py:140
        return hidden_states + forwarded_states


class T5StackEnd(nn.Module):  # encoder (transformers/models/t5/modeling_t5.py:707)
    def __init__(self):
        super().__init__()
        self.block: Any = nn.ModuleDict({str(i): nn.Module() for i in (0, 5)})
        self.block["0"].layer = nn.ModuleList([nn.Module()])
        self.block["0"].layer[0].SelfAttention = nn.Module()
        self.block["0"].layer[0].SelfAttention.relative_attention_bias = nn.Embedding(32, 8)
        self.block["5"].layer = nn.ModuleList([T5LayerSelfAttention(), T5LayerFF()])
        self.final_layer_norm = T5LayerNorm()

    def forward(self, attention_mask, hidden_states):
        batch, source = attention_mask.shape
        device = attention_mask.device
        attention_mask = attention_mask.to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(source, device=device)[None, None, :, None]
        kv_indices = torch.arange(source, device=device)[None, None, None, :]
        attention_mask = ((q_indices >= 0) & attention_mask[batch_indices, kv_indices]).expand(
            batch, -1, source, source
        )
        # block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
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
            self.block["0"].layer[0].SelfAttention.relative_attention_bias(relative_buckets + masked)
        )
        position_bias = relative_attention_bias.permute(2, 0, 1).unsqueeze(0)
        # block.5 (transformers/models/t5/modeling_t5.py:459)
        hidden_states = self.block["5"].layer[0](hidden_states, attention_mask, position_bias)
        hidden_states = self.block["5"].layer[1](hidden_states)
        # transformers/models/t5/modeling_t5.py:744
        return self.final_layer_norm(hidden_states)


class T5Block(nn.Module):  # decoder.block.0 (transformers/models/t5/modeling_t5.py:459)
    def __init__(self):
        super().__init__()
        self.layer: Any = nn.ModuleList([T5LayerSelfAttention(), nn.Module(), T5LayerFF()])
        self.layer[1].EncDecAttention = T5Attention()
        self.layer[1].layer_norm = T5LayerNorm()

    @torch.compiler.nested_compile_region()
    def forward(
        self,
        hidden_states,
        attention_mask,
        position_bias,
        hidden_states_1,
        encoder_extended_attention_mask,
        cross_attn_position_bias,
    ):
        hidden_states = self.layer[0](hidden_states, attention_mask, position_bias)
        # layer.1 (transformers/models/t5/modeling_t5.py:422)
        normed_hidden_states = self.layer[1].layer_norm(hidden_states)
        attention_output = self.layer[1].EncDecAttention(
            normed_hidden_states, hidden_states_1, encoder_extended_attention_mask, cross_attn_position_bias
        )
        layer_output = hidden_states + attention_output
        # transformers/models/t5/modeling_t5.py:498
        return self.layer[2](layer_output)


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder: Any = nn.Module()
        self.decoder.block = Numbered({**{i: T5Block() for i in range(0, 4)}, 4: nn.Module()})
        self.decoder.block[0].layer[0].SelfAttention.relative_attention_bias = nn.Embedding(32, 8)
        self.decoder.block[4].layer = nn.ModuleList([T5LayerSelfAttention()])
        self.decoder.embed_tokens = nn.Embedding(32128, 512)
        self.encoder = T5StackEnd()

    def forward(self, attention_mask, decoder_input_ids, hidden_states):
        batch, source = attention_mask.shape
        target = decoder_input_ids.shape[1]
        device = attention_mask.device
        # the model itself (transformers/models/t5/modeling_t5.py:1011)
        hidden_states_1 = self.encoder(attention_mask, hidden_states)
        # decoder (transformers/models/t5/modeling_t5.py:678)
        hidden_states = self.decoder.embed_tokens(decoder_input_ids)
        q_indices = torch.arange(target, device=device)[None, None, :, None]
        attention_mask_2 = torch.arange(target, device=device)[None, None, None, :] <= q_indices
        attention_mask_2 = attention_mask_2.expand(batch, -1, target, target)
        attention_mask = attention_mask.to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(target, device=device)[None, None, :, None]
        kv_indices = torch.arange(source, device=device)[None, None, None, :]
        encoder_extended_attention_mask = ((q_indices >= 0) & attention_mask[batch_indices, kv_indices]).expand(
            batch, -1, target, source
        )
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
        context_position = torch.arange(target, dtype=torch.int64, device=device).unsqueeze(1)
        relative_position = torch.arange(target, dtype=torch.int64, device=device).unsqueeze(0) - context_position
        relative_position = -torch.min(relative_position, torch.zeros_like(relative_position))
        is_small = relative_position < 16
        relative_position_if_large = ((relative_position.to(torch.float32) / 16).log() / math.log(8) * 16).to(
            torch.int64
        ) + 16
        relative_buckets = torch.where(
            is_small,
            relative_position,
            torch.min(relative_position_if_large, torch.full_like(relative_position_if_large, 31)),
        )
        relative_attention_bias = self.decoder.block[0].layer[0].SelfAttention.relative_attention_bias(relative_buckets)
        position_bias = relative_attention_bias.permute(2, 0, 1).unsqueeze(0)
        # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:338)
        cross_attn_position_bias = torch.zeros([1, 8, target, source], dtype=torch.float32, device=device)
        for block in self.decoder.block[0:4]:
            # decoder (transformers/models/t5/modeling_t5.py:728)
            hidden_states = block(
                hidden_states,
                attention_mask_2,
                position_bias,
                hidden_states_1,
                encoder_extended_attention_mask,
                cross_attn_position_bias,
            )
        # decoder.block.4 (transformers/models/t5/modeling_t5.py:459)
        attention_output = self.decoder.block[4].layer[0](hidden_states, attention_mask_2, position_bias)
        return (attention_output, hidden_states_1)

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
