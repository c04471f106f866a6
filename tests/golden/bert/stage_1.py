"""bert, stage 1 of 2, for cpu.

takes    attention_mask: int64[batch, seq], an input of the model
takes    hidden_states: float32[batch, seq, 3072], from stage 0
takes    hidden_states_1: float32[batch, seq, 768], from stage 0
returns  hidden_states_2: float32[batch, seq, 30522], to output 0 of the model
holds    74 parameters, 209.0 MiB
alone    Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, hidden_states, hidden_states_1)
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
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "hidden_states": (0, torch.float32, ("batch", "seq", 3072)),
    "hidden_states_1": (0, torch.float32, ("batch", "seq", 768)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {"hidden_states_2": ([], [0], torch.float32, ("batch", "seq", 30522))}


class BertOutput(nn.Module):  # bert.encoder.layer.7.output (transformers/models/bert/modeling_bert.py:348)
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(3072, 768)
        self.LayerNorm = nn.LayerNorm(768, eps=1e-12)

    def forward(self, hidden_states, hidden_states_1):
        hidden_states = self.dense(hidden_states)
        return self.LayerNorm(hidden_states + hidden_states_1)


# bert.encoder.layer.8.attention.self (transformers/models/bert/modeling_bert.py:175)
class BertSelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(768, 768)
        self.key = nn.Linear(768, 768)
        self.value = nn.Linear(768, 768)

    def forward(self, hidden_states, attention_mask):
        batch, seq = hidden_states.shape[:2]
        query_layer = self.query(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        key_layer = self.key(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        value_layer = self.value(hidden_states).view(batch, seq, -1, 64).transpose(1, 2)
        attn_output = F.scaled_dot_product_attention(
            query_layer, key_layer, value_layer, attn_mask=attention_mask, scale=0.125
        )
        return attn_output.transpose(1, 2).reshape(batch, seq, -1)


class BertLayer(nn.Module):  # bert.encoder.layer.8 (transformers/models/bert/modeling_bert.py:383)
    def __init__(self):
        super().__init__()
        self.attention: Any = nn.Module()
        self.attention.self = BertSelfAttention()
        self.attention.output = nn.Module()
        self.attention.output.dense = nn.Linear(768, 768)
        self.attention.output.LayerNorm = nn.LayerNorm(768, eps=1e-12)
        self.intermediate: Any = nn.Module()
        self.intermediate.dense = nn.Linear(768, 3072)
        self.output = BertOutput()

    @torch.compiler.nested_compile_region()
    def forward(self, hidden_states, attention_mask):
        # attention (transformers/models/bert/modeling_bert.py:314)
        attention_output = self.attention.self(hidden_states, attention_mask)
        # attention.output (transformers/models/bert/modeling_bert.py:290)
        dense = self.attention.output.dense(attention_output)
        hidden_states = self.attention.output.LayerNorm(dense + hidden_states)
        # intermediate (transformers/models/bert/modeling_bert.py:335)
        dense = self.intermediate.dense(hidden_states)
        hidden_states_2 = F.gelu(dense)
        # transformers/models/bert/modeling_bert.py:408
        return self.output(hidden_states_2, hidden_states)


class Stage1(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert: Any = nn.Module()
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleDict({"7": nn.Module(), **{str(i): BertLayer() for i in range(8, 12)}})
        self.bert.encoder.layer["7"].output = BertOutput()
        self.cls: Any = nn.Module()
        self.cls.predictions = nn.Module()
        self.cls.predictions.decoder = nn.Linear(768, 30522)
        self.cls.predictions.transform = nn.Module()
        self.cls.predictions.transform.dense = nn.Linear(768, 768)
        self.cls.predictions.transform.LayerNorm = nn.LayerNorm(768, eps=1e-12)

    def forward(self, attention_mask, hidden_states, hidden_states_1):
        batch, seq = attention_mask.shape
        device = attention_mask.device
        # bert (transformers/models/bert/modeling_bert.py:661)
        attention_mask = attention_mask.to(torch.bool)
        batch_indices = torch.arange(batch, device=device)[:, None, None, None]
        q_indices = torch.arange(seq, device=device)[None, None, :, None]
        kv_indices = torch.arange(seq, device=device)[None, None, None, :]
        attention_mask = ((q_indices >= 0) & attention_mask[batch_indices, kv_indices]).expand(batch, -1, seq, seq)
        # bert.encoder.layer.7 (transformers/models/bert/modeling_bert.py:408)
        hidden_states = self.bert.encoder.layer["7"].output(hidden_states, hidden_states_1)
        for layer in list(self.bert.encoder.layer.values())[1:]:
            # bert.encoder (transformers/models/bert/modeling_bert.py:436)
            hidden_states = layer(hidden_states, attention_mask)
        # cls.predictions.transform (transformers/models/bert/modeling_bert.py:477)
        hidden_states = self.cls.predictions.transform.dense(hidden_states)
        hidden_states = F.gelu(hidden_states)
        hidden_states = self.cls.predictions.transform.LayerNorm(hidden_states)
        # cls.predictions (transformers/models/bert/modeling_bert.py:495)
        hidden_states_2 = self.cls.predictions.decoder(hidden_states)
        return (hidden_states_2,)

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
