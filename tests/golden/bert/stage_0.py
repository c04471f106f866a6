"""bert, stage 0 of 2, for cpu.

takes    input_ids: int64[batch, seq], an input of the model
takes    attention_mask: int64[batch, seq], an input of the model
takes    token_type_ids: int64[batch, seq], an input of the model
returns  hidden_states: float32[batch, seq, 3072], to stage 1
returns  hidden_states_1: float32[batch, seq, 768], to stage 1
holds    129 parameters, 298.2 MiB
alone    Stage0.load("stage_0.safetensors", device="cpu")(input_ids, attention_mask, token_type_ids)
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
    "input_ids": (None, torch.int64, ("batch", "seq")),
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "token_type_ids": (None, torch.int64, ("batch", "seq")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "hidden_states": ([1], [], torch.float32, ("batch", "seq", 3072)),
    "hidden_states_1": ([1], [], torch.float32, ("batch", "seq", 768)),
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


class BertAttention(nn.Module):  # bert.encoder.layer.0.attention (transformers/models/bert/modeling_bert.py:314)
    def __init__(self):
        super().__init__()
        self.self: Any = nn.Module()
        self.self.query = nn.Linear(768, 768)
        self.self.key = nn.Linear(768, 768)
        self.self.value = nn.Linear(768, 768)
        self.output: Any = nn.Module()
        self.output.dense = nn.Linear(768, 768)
        self.output.LayerNorm = nn.LayerNorm(768, eps=1e-12)

    def forward(self, hidden_states, attention_mask):
        batch, seq = hidden_states.shape[:2]
        # self (transformers/models/bert/modeling_bert.py:175)
        query_layer = self.self.query(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        key_layer = self.self.key(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        value_layer = self.self.value(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        attn_output = F.scaled_dot_product_attention(
            query_layer, key_layer, value_layer, attn_mask=attention_mask, scale=0.125
        )
        attn_output = attn_output.transpose(1, 2).reshape(batch, seq, -1)
        # output (transformers/models/bert/modeling_bert.py:290)
        dense = self.output.dense(attn_output)
        return self.output.LayerNorm(dense + hidden_states)


class BertLayer(nn.Module):  # bert.encoder.layer.0 (transformers/models/bert/modeling_bert.py:383)
    def __init__(self):
        super().__init__()
        self.attention = BertAttention()
        self.intermediate: Any = nn.Module()
        self.intermediate.dense = nn.Linear(768, 3072)
        self.output: Any = nn.Module()
        self.output.dense = nn.Linear(3072, 768)
        self.output.LayerNorm = nn.LayerNorm(768, eps=1e-12)

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_states, attention_mask):
        self_attention_output = self.attention(hidden_states, attention_mask)
        # intermediate (transformers/models/bert/modeling_bert.py:335)
        hidden_states = self.intermediate.dense(self_attention_output)
        hidden_states = F.gelu(hidden_states)
        # output (transformers/models/bert/modeling_bert.py:348)
        hidden_states = self.output.dense(hidden_states)
        return self.output.LayerNorm(hidden_states + self_attention_output)


class Stage0(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert: Any = nn.Module()
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = Numbered({**{i: BertLayer() for i in range(0, 7)}, 7: nn.Module()})
        self.bert.encoder.layer[7].attention = BertAttention()
        self.bert.encoder.layer[7].intermediate = nn.Module()
        self.bert.encoder.layer[7].intermediate.dense = nn.Linear(768, 3072)
        self.bert.embeddings = nn.Module()
        self.bert.embeddings.word_embeddings = nn.Embedding(30522, 768, padding_idx=0)
        self.bert.embeddings.position_embeddings = nn.Embedding(512, 768)
        self.bert.embeddings.token_type_embeddings = nn.Embedding(2, 768)
        self.bert.embeddings.LayerNorm = nn.LayerNorm(768, eps=1e-12)
        self.bert.embeddings.position_ids = nn.Buffer(torch.empty(1, 512, dtype=torch.int64), persistent=False)

    def forward(self, input_ids, attention_mask, token_type_ids):
        batch, seq = input_ids.shape
        device = input_ids.device
        # bert.embeddings (transformers/models/bert/modeling_bert.py:84)
        position_ids = self.bert.embeddings.position_ids[:, :seq]
        inputs_embeds = self.bert.embeddings.word_embeddings(input_ids)
        token_type_embeddings = self.bert.embeddings.token_type_embeddings(token_type_ids)
        embeddings = inputs_embeds + token_type_embeddings
        position_embeddings = self.bert.embeddings.position_embeddings(position_ids)
        embeddings = embeddings + position_embeddings
        hidden_states = self.bert.embeddings.LayerNorm(embeddings)
        # bert (transformers/models/bert/modeling_bert.py:661)
        attention_mask = attention_mask.to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(seq, device=device)[None, None, :, None]
        kv_indices = torch.arange(seq, device=device)[None, None, None, :]
        attention_mask = ((q_indices >= 0) & attention_mask[batch_indices, kv_indices]).expand(batch, -1, seq, seq)
        for layer in self.bert.encoder.layer[0:7]:
            # bert.encoder (transformers/models/bert/modeling_bert.py:436)
            hidden_states = layer(hidden_states, attention_mask)
        # bert.encoder.layer.7 (transformers/models/bert/modeling_bert.py:383)
        hidden_states_1 = self.bert.encoder.layer[7].attention(hidden_states, attention_mask)
        # bert.encoder.layer.7.intermediate (transformers/models/bert/modeling_bert.py:335)
        hidden_states = self.bert.encoder.layer[7].intermediate.dense(hidden_states_1)
        hidden_states = F.gelu(hidden_states)
        return (hidden_states, hidden_states_1)

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
