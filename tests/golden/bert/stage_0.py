"""bert, stage 0 of 2, for cpu.

takes    input_ids: int64[batch, seq], an input of the model
takes    attention_mask: int64[batch, seq], an input of the model
takes    token_type_ids: int64[batch, seq], an input of the model
returns  linear_46: float32[batch, seq, 3072], to stage 1
returns  layer_norm_15: float32[batch, seq, 768], to stage 1
holds    129 parameters, 298.2 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(input_ids, attention_mask, token_type_ids)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "input_ids": (None, torch.int64, ("batch", "seq")),
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "token_type_ids": (None, torch.int64, ("batch", "seq")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear_46": ([1], [], torch.float32, ("batch", "seq", 3072)),
    "layer_norm_15": ([1], [], torch.float32, ("batch", "seq", 768)),
}

# name: (dtype, shape)
PARAMETERS = {
    "bert.embeddings.word_embeddings.weight": (torch.float32, (30522, 768)),
    "bert.embeddings.position_embeddings.weight": (torch.float32, (512, 768)),
    "bert.embeddings.token_type_embeddings.weight": (torch.float32, (2, 768)),
    "bert.embeddings.LayerNorm.weight": (torch.float32, (768,)),
    "bert.embeddings.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.0.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.0.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.0.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.0.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.0.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.0.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.0.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.0.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.0.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.0.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.1.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.1.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.1.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.1.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.1.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.1.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.1.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.1.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.1.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.1.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.2.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.2.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.2.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.2.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.2.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.2.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.2.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.2.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.2.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.2.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.3.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.3.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.3.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.3.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.3.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.3.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.3.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.3.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.3.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.3.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.4.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.4.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.4.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.4.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.4.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.4.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.4.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.4.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.4.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.4.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.5.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.5.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.5.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.5.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.5.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.5.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.5.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.5.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.5.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.5.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.6.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.6.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.6.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.6.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.6.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.6.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.6.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.6.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.6.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.6.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.7.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.7.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.7.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.7.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.7.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.7.intermediate.dense.bias": (torch.float32, (3072,)),
}

# name: (dtype, shape), in no checkpoint
CONSTANTS = {
    "bert.embeddings.position_ids": (torch.int64, (1, 512)),
}


class Block(nn.Module):
    """A module whose numbered parts are reached as h[6]."""

    def __getitem__(self, index):
        return getattr(self, str(index))


def place(module, name, tensor, persistent=True):
    """Put a tensor under its dotted name, making the blocks on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module._modules[part] = Block()
        module = module._modules[part]
    if isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module.register_buffer(leaf, tensor, persistent=persistent)


class Stage0(Block):
    def __init__(self):
        super().__init__()
        for name, (dtype, shape) in PARAMETERS.items():
            place(self, name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=dtype.is_floating_point))
        for name, (dtype, shape) in CONSTANTS.items():
            place(self, name, torch.empty(shape, dtype=dtype), persistent=False)

    def forward(self, input_ids, attention_mask, token_type_ids):
        batch = input_ids.shape[0]
        seq = input_ids.shape[1]
        device = input_ids.device
        # bert.embeddings (transformers/models/bert/modeling_bert.py:84)
        slice_1 = aten.slice.Tensor(self.bert.embeddings.position_ids, 1, 0, seq)
        # bert.embeddings.word_embeddings (transformers/models/bert/modeling_bert.py:99)
        embedding = aten.embedding.default(self.bert.embeddings.word_embeddings.weight, input_ids, 0)
        del input_ids
        # bert.embeddings.token_type_embeddings (transformers/models/bert/modeling_bert.py:100)
        embedding_1 = aten.embedding.default(self.bert.embeddings.token_type_embeddings.weight, token_type_ids)
        del token_type_ids
        # bert.embeddings (transformers/models/bert/modeling_bert.py:101)
        add_1 = aten.add.Tensor(embedding, embedding_1)
        del embedding, embedding_1
        # bert.embeddings.position_embeddings (transformers/models/bert/modeling_bert.py:103)
        embedding_2 = aten.embedding.default(self.bert.embeddings.position_embeddings.weight, slice_1)
        del slice_1
        # bert.embeddings (transformers/models/bert/modeling_bert.py:104)
        add_2 = aten.add.Tensor(add_1, embedding_2)
        del add_1, embedding_2
        # bert.embeddings.LayerNorm (transformers/models/bert/modeling_bert.py:106)
        layer_norm = aten.layer_norm.default(
            add_2, [768], self.bert.embeddings.LayerNorm.weight, self.bert.embeddings.LayerNorm.bias, 1e-12, False
        )
        del add_2
        # bert (transformers/models/bert/modeling_bert.py:661)
        to = aten.to.device(attention_mask, device, torch.bool)
        del attention_mask
        arange = aten.arange.default(batch, device=device)
        arange_2 = aten.arange.default(seq, device=device)
        add_4 = aten.add.Tensor(arange_2, 0)
        del arange_2
        arange_3 = aten.arange.default(seq, device=device)
        add_5 = aten.add.Tensor(arange_3, 0)
        del arange_3
        unsqueeze = aten.unsqueeze.default(arange, 1)
        del arange
        unsqueeze_1 = aten.unsqueeze.default(unsqueeze, 2)
        del unsqueeze
        unsqueeze_2 = aten.unsqueeze.default(unsqueeze_1, 3)
        del unsqueeze_1
        unsqueeze_6 = aten.unsqueeze.default(add_4, 0)
        del add_4
        unsqueeze_7 = aten.unsqueeze.default(unsqueeze_6, 1)
        del unsqueeze_6
        unsqueeze_8 = aten.unsqueeze.default(unsqueeze_7, 3)
        del unsqueeze_7
        unsqueeze_9 = aten.unsqueeze.default(add_5, 0)
        del add_5
        unsqueeze_10 = aten.unsqueeze.default(unsqueeze_9, 1)
        del unsqueeze_9
        unsqueeze_11 = aten.unsqueeze.default(unsqueeze_10, 2)
        del unsqueeze_10
        new_ones = aten.new_ones.default(unsqueeze_8, [], dtype=torch.bool)
        ge = aten.ge.Scalar(unsqueeze_8, 0)
        del unsqueeze_8
        and_1 = aten.__and__.Tensor(new_ones, ge)
        del new_ones, ge
        index = aten.index.Tensor(to, [unsqueeze_2, unsqueeze_11])
        del to, unsqueeze_2, unsqueeze_11
        and_2 = aten.__and__.Tensor(and_1, index)
        del and_1, index
        expand = aten.expand.default(and_2, [batch, -1, seq, seq])
        del and_2
        # bert.encoder.layer.0.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear = aten.linear.default(
            layer_norm,
            self.bert.encoder.layer[0].attention.self.query.weight,
            self.bert.encoder.layer[0].attention.self.query.bias,
        )
        # bert.encoder.layer.0.attention.self (transformers/models/bert/modeling_bert.py:175)
        view = aten.view.default(linear, [batch, seq, -1, 64])
        del linear
        transpose = aten.transpose.int(view, 1, 2)
        del view
        # bert.encoder.layer.0.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_1 = aten.linear.default(
            layer_norm,
            self.bert.encoder.layer[0].attention.self.key.weight,
            self.bert.encoder.layer[0].attention.self.key.bias,
        )
        # bert.encoder.layer.0.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_1 = aten.view.default(linear_1, [batch, seq, -1, 64])
        del linear_1
        transpose_1 = aten.transpose.int(view_1, 1, 2)
        del view_1
        # bert.encoder.layer.0.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_2 = aten.linear.default(
            layer_norm,
            self.bert.encoder.layer[0].attention.self.value.weight,
            self.bert.encoder.layer[0].attention.self.value.bias,
        )
        # bert.encoder.layer.0.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_2 = aten.view.default(linear_2, [batch, seq, -1, 64])
        del linear_2
        transpose_2 = aten.transpose.int(view_2, 1, 2)
        del view_2
        scaled_dot_product_attention = aten.scaled_dot_product_attention.default(
            transpose, transpose_1, transpose_2, expand, scale=0.125
        )
        del transpose, transpose_1, transpose_2
        transpose_3 = aten.transpose.int(scaled_dot_product_attention, 1, 2)
        del scaled_dot_product_attention
        reshape = aten.reshape.default(transpose_3, [batch, seq, -1])
        del transpose_3
        # bert.encoder.layer.0.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_3 = aten.linear.default(
            reshape,
            self.bert.encoder.layer[0].attention.output.dense.weight,
            self.bert.encoder.layer[0].attention.output.dense.bias,
        )
        del reshape
        # bert.encoder.layer.0.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_6 = aten.add.Tensor(linear_3, layer_norm)
        del linear_3, layer_norm
        # bert.encoder.layer.0.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_1 = aten.layer_norm.default(
            add_6,
            [768],
            self.bert.encoder.layer[0].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[0].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_6
        # bert.encoder.layer.0.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_4 = aten.linear.default(
            layer_norm_1,
            self.bert.encoder.layer[0].intermediate.dense.weight,
            self.bert.encoder.layer[0].intermediate.dense.bias,
        )
        # bert.encoder.layer.0.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu = aten.gelu.default(linear_4)
        del linear_4
        # bert.encoder.layer.0.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_5 = aten.linear.default(
            gelu, self.bert.encoder.layer[0].output.dense.weight, self.bert.encoder.layer[0].output.dense.bias
        )
        del gelu
        # bert.encoder.layer.0.output (transformers/models/bert/modeling_bert.py:350)
        add_7 = aten.add.Tensor(linear_5, layer_norm_1)
        del linear_5, layer_norm_1
        # bert.encoder.layer.0.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_2 = aten.layer_norm.default(
            add_7,
            [768],
            self.bert.encoder.layer[0].output.LayerNorm.weight,
            self.bert.encoder.layer[0].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_7
        # bert.encoder.layer.1.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_6 = aten.linear.default(
            layer_norm_2,
            self.bert.encoder.layer[1].attention.self.query.weight,
            self.bert.encoder.layer[1].attention.self.query.bias,
        )
        # bert.encoder.layer.1.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_3 = aten.view.default(linear_6, [batch, seq, -1, 64])
        del linear_6
        transpose_4 = aten.transpose.int(view_3, 1, 2)
        del view_3
        # bert.encoder.layer.1.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_7 = aten.linear.default(
            layer_norm_2,
            self.bert.encoder.layer[1].attention.self.key.weight,
            self.bert.encoder.layer[1].attention.self.key.bias,
        )
        # bert.encoder.layer.1.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_4 = aten.view.default(linear_7, [batch, seq, -1, 64])
        del linear_7
        transpose_5 = aten.transpose.int(view_4, 1, 2)
        del view_4
        # bert.encoder.layer.1.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_8 = aten.linear.default(
            layer_norm_2,
            self.bert.encoder.layer[1].attention.self.value.weight,
            self.bert.encoder.layer[1].attention.self.value.bias,
        )
        # bert.encoder.layer.1.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_5 = aten.view.default(linear_8, [batch, seq, -1, 64])
        del linear_8
        transpose_6 = aten.transpose.int(view_5, 1, 2)
        del view_5
        scaled_dot_product_attention_1 = aten.scaled_dot_product_attention.default(
            transpose_4, transpose_5, transpose_6, expand, scale=0.125
        )
        del transpose_4, transpose_5, transpose_6
        transpose_7 = aten.transpose.int(scaled_dot_product_attention_1, 1, 2)
        del scaled_dot_product_attention_1
        reshape_1 = aten.reshape.default(transpose_7, [batch, seq, -1])
        del transpose_7
        # bert.encoder.layer.1.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_9 = aten.linear.default(
            reshape_1,
            self.bert.encoder.layer[1].attention.output.dense.weight,
            self.bert.encoder.layer[1].attention.output.dense.bias,
        )
        del reshape_1
        # bert.encoder.layer.1.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_8 = aten.add.Tensor(linear_9, layer_norm_2)
        del linear_9, layer_norm_2
        # bert.encoder.layer.1.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_3 = aten.layer_norm.default(
            add_8,
            [768],
            self.bert.encoder.layer[1].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[1].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_8
        # bert.encoder.layer.1.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_10 = aten.linear.default(
            layer_norm_3,
            self.bert.encoder.layer[1].intermediate.dense.weight,
            self.bert.encoder.layer[1].intermediate.dense.bias,
        )
        # bert.encoder.layer.1.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_1 = aten.gelu.default(linear_10)
        del linear_10
        # bert.encoder.layer.1.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_11 = aten.linear.default(
            gelu_1, self.bert.encoder.layer[1].output.dense.weight, self.bert.encoder.layer[1].output.dense.bias
        )
        del gelu_1
        # bert.encoder.layer.1.output (transformers/models/bert/modeling_bert.py:350)
        add_9 = aten.add.Tensor(linear_11, layer_norm_3)
        del linear_11, layer_norm_3
        # bert.encoder.layer.1.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_4 = aten.layer_norm.default(
            add_9,
            [768],
            self.bert.encoder.layer[1].output.LayerNorm.weight,
            self.bert.encoder.layer[1].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_9
        # bert.encoder.layer.2.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_12 = aten.linear.default(
            layer_norm_4,
            self.bert.encoder.layer[2].attention.self.query.weight,
            self.bert.encoder.layer[2].attention.self.query.bias,
        )
        # bert.encoder.layer.2.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_6 = aten.view.default(linear_12, [batch, seq, -1, 64])
        del linear_12
        transpose_8 = aten.transpose.int(view_6, 1, 2)
        del view_6
        # bert.encoder.layer.2.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_13 = aten.linear.default(
            layer_norm_4,
            self.bert.encoder.layer[2].attention.self.key.weight,
            self.bert.encoder.layer[2].attention.self.key.bias,
        )
        # bert.encoder.layer.2.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_7 = aten.view.default(linear_13, [batch, seq, -1, 64])
        del linear_13
        transpose_9 = aten.transpose.int(view_7, 1, 2)
        del view_7
        # bert.encoder.layer.2.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_14 = aten.linear.default(
            layer_norm_4,
            self.bert.encoder.layer[2].attention.self.value.weight,
            self.bert.encoder.layer[2].attention.self.value.bias,
        )
        # bert.encoder.layer.2.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_8 = aten.view.default(linear_14, [batch, seq, -1, 64])
        del linear_14
        transpose_10 = aten.transpose.int(view_8, 1, 2)
        del view_8
        scaled_dot_product_attention_2 = aten.scaled_dot_product_attention.default(
            transpose_8, transpose_9, transpose_10, expand, scale=0.125
        )
        del transpose_8, transpose_9, transpose_10
        transpose_11 = aten.transpose.int(scaled_dot_product_attention_2, 1, 2)
        del scaled_dot_product_attention_2
        reshape_2 = aten.reshape.default(transpose_11, [batch, seq, -1])
        del transpose_11
        # bert.encoder.layer.2.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_15 = aten.linear.default(
            reshape_2,
            self.bert.encoder.layer[2].attention.output.dense.weight,
            self.bert.encoder.layer[2].attention.output.dense.bias,
        )
        del reshape_2
        # bert.encoder.layer.2.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_10 = aten.add.Tensor(linear_15, layer_norm_4)
        del linear_15, layer_norm_4
        # bert.encoder.layer.2.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_5 = aten.layer_norm.default(
            add_10,
            [768],
            self.bert.encoder.layer[2].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[2].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_10
        # bert.encoder.layer.2.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_16 = aten.linear.default(
            layer_norm_5,
            self.bert.encoder.layer[2].intermediate.dense.weight,
            self.bert.encoder.layer[2].intermediate.dense.bias,
        )
        # bert.encoder.layer.2.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_2 = aten.gelu.default(linear_16)
        del linear_16
        # bert.encoder.layer.2.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_17 = aten.linear.default(
            gelu_2, self.bert.encoder.layer[2].output.dense.weight, self.bert.encoder.layer[2].output.dense.bias
        )
        del gelu_2
        # bert.encoder.layer.2.output (transformers/models/bert/modeling_bert.py:350)
        add_11 = aten.add.Tensor(linear_17, layer_norm_5)
        del linear_17, layer_norm_5
        # bert.encoder.layer.2.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_6 = aten.layer_norm.default(
            add_11,
            [768],
            self.bert.encoder.layer[2].output.LayerNorm.weight,
            self.bert.encoder.layer[2].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_11
        # bert.encoder.layer.3.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_18 = aten.linear.default(
            layer_norm_6,
            self.bert.encoder.layer[3].attention.self.query.weight,
            self.bert.encoder.layer[3].attention.self.query.bias,
        )
        # bert.encoder.layer.3.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_9 = aten.view.default(linear_18, [batch, seq, -1, 64])
        del linear_18
        transpose_12 = aten.transpose.int(view_9, 1, 2)
        del view_9
        # bert.encoder.layer.3.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_19 = aten.linear.default(
            layer_norm_6,
            self.bert.encoder.layer[3].attention.self.key.weight,
            self.bert.encoder.layer[3].attention.self.key.bias,
        )
        # bert.encoder.layer.3.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_10 = aten.view.default(linear_19, [batch, seq, -1, 64])
        del linear_19
        transpose_13 = aten.transpose.int(view_10, 1, 2)
        del view_10
        # bert.encoder.layer.3.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_20 = aten.linear.default(
            layer_norm_6,
            self.bert.encoder.layer[3].attention.self.value.weight,
            self.bert.encoder.layer[3].attention.self.value.bias,
        )
        # bert.encoder.layer.3.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_11 = aten.view.default(linear_20, [batch, seq, -1, 64])
        del linear_20
        transpose_14 = aten.transpose.int(view_11, 1, 2)
        del view_11
        scaled_dot_product_attention_3 = aten.scaled_dot_product_attention.default(
            transpose_12, transpose_13, transpose_14, expand, scale=0.125
        )
        del transpose_12, transpose_13, transpose_14
        transpose_15 = aten.transpose.int(scaled_dot_product_attention_3, 1, 2)
        del scaled_dot_product_attention_3
        reshape_3 = aten.reshape.default(transpose_15, [batch, seq, -1])
        del transpose_15
        # bert.encoder.layer.3.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_21 = aten.linear.default(
            reshape_3,
            self.bert.encoder.layer[3].attention.output.dense.weight,
            self.bert.encoder.layer[3].attention.output.dense.bias,
        )
        del reshape_3
        # bert.encoder.layer.3.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_12 = aten.add.Tensor(linear_21, layer_norm_6)
        del linear_21, layer_norm_6
        # bert.encoder.layer.3.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_7 = aten.layer_norm.default(
            add_12,
            [768],
            self.bert.encoder.layer[3].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[3].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_12
        # bert.encoder.layer.3.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_22 = aten.linear.default(
            layer_norm_7,
            self.bert.encoder.layer[3].intermediate.dense.weight,
            self.bert.encoder.layer[3].intermediate.dense.bias,
        )
        # bert.encoder.layer.3.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_3 = aten.gelu.default(linear_22)
        del linear_22
        # bert.encoder.layer.3.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_23 = aten.linear.default(
            gelu_3, self.bert.encoder.layer[3].output.dense.weight, self.bert.encoder.layer[3].output.dense.bias
        )
        del gelu_3
        # bert.encoder.layer.3.output (transformers/models/bert/modeling_bert.py:350)
        add_13 = aten.add.Tensor(linear_23, layer_norm_7)
        del linear_23, layer_norm_7
        # bert.encoder.layer.3.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_8 = aten.layer_norm.default(
            add_13,
            [768],
            self.bert.encoder.layer[3].output.LayerNorm.weight,
            self.bert.encoder.layer[3].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_13
        # bert.encoder.layer.4.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_24 = aten.linear.default(
            layer_norm_8,
            self.bert.encoder.layer[4].attention.self.query.weight,
            self.bert.encoder.layer[4].attention.self.query.bias,
        )
        # bert.encoder.layer.4.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_12 = aten.view.default(linear_24, [batch, seq, -1, 64])
        del linear_24
        transpose_16 = aten.transpose.int(view_12, 1, 2)
        del view_12
        # bert.encoder.layer.4.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_25 = aten.linear.default(
            layer_norm_8,
            self.bert.encoder.layer[4].attention.self.key.weight,
            self.bert.encoder.layer[4].attention.self.key.bias,
        )
        # bert.encoder.layer.4.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_13 = aten.view.default(linear_25, [batch, seq, -1, 64])
        del linear_25
        transpose_17 = aten.transpose.int(view_13, 1, 2)
        del view_13
        # bert.encoder.layer.4.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_26 = aten.linear.default(
            layer_norm_8,
            self.bert.encoder.layer[4].attention.self.value.weight,
            self.bert.encoder.layer[4].attention.self.value.bias,
        )
        # bert.encoder.layer.4.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_14 = aten.view.default(linear_26, [batch, seq, -1, 64])
        del linear_26
        transpose_18 = aten.transpose.int(view_14, 1, 2)
        del view_14
        scaled_dot_product_attention_4 = aten.scaled_dot_product_attention.default(
            transpose_16, transpose_17, transpose_18, expand, scale=0.125
        )
        del transpose_16, transpose_17, transpose_18
        transpose_19 = aten.transpose.int(scaled_dot_product_attention_4, 1, 2)
        del scaled_dot_product_attention_4
        reshape_4 = aten.reshape.default(transpose_19, [batch, seq, -1])
        del transpose_19
        # bert.encoder.layer.4.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_27 = aten.linear.default(
            reshape_4,
            self.bert.encoder.layer[4].attention.output.dense.weight,
            self.bert.encoder.layer[4].attention.output.dense.bias,
        )
        del reshape_4
        # bert.encoder.layer.4.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_14 = aten.add.Tensor(linear_27, layer_norm_8)
        del linear_27, layer_norm_8
        # bert.encoder.layer.4.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_9 = aten.layer_norm.default(
            add_14,
            [768],
            self.bert.encoder.layer[4].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[4].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_14
        # bert.encoder.layer.4.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_28 = aten.linear.default(
            layer_norm_9,
            self.bert.encoder.layer[4].intermediate.dense.weight,
            self.bert.encoder.layer[4].intermediate.dense.bias,
        )
        # bert.encoder.layer.4.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_4 = aten.gelu.default(linear_28)
        del linear_28
        # bert.encoder.layer.4.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_29 = aten.linear.default(
            gelu_4, self.bert.encoder.layer[4].output.dense.weight, self.bert.encoder.layer[4].output.dense.bias
        )
        del gelu_4
        # bert.encoder.layer.4.output (transformers/models/bert/modeling_bert.py:350)
        add_15 = aten.add.Tensor(linear_29, layer_norm_9)
        del linear_29, layer_norm_9
        # bert.encoder.layer.4.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_10 = aten.layer_norm.default(
            add_15,
            [768],
            self.bert.encoder.layer[4].output.LayerNorm.weight,
            self.bert.encoder.layer[4].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_15
        # bert.encoder.layer.5.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_30 = aten.linear.default(
            layer_norm_10,
            self.bert.encoder.layer[5].attention.self.query.weight,
            self.bert.encoder.layer[5].attention.self.query.bias,
        )
        # bert.encoder.layer.5.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_15 = aten.view.default(linear_30, [batch, seq, -1, 64])
        del linear_30
        transpose_20 = aten.transpose.int(view_15, 1, 2)
        del view_15
        # bert.encoder.layer.5.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_31 = aten.linear.default(
            layer_norm_10,
            self.bert.encoder.layer[5].attention.self.key.weight,
            self.bert.encoder.layer[5].attention.self.key.bias,
        )
        # bert.encoder.layer.5.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_16 = aten.view.default(linear_31, [batch, seq, -1, 64])
        del linear_31
        transpose_21 = aten.transpose.int(view_16, 1, 2)
        del view_16
        # bert.encoder.layer.5.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_32 = aten.linear.default(
            layer_norm_10,
            self.bert.encoder.layer[5].attention.self.value.weight,
            self.bert.encoder.layer[5].attention.self.value.bias,
        )
        # bert.encoder.layer.5.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_17 = aten.view.default(linear_32, [batch, seq, -1, 64])
        del linear_32
        transpose_22 = aten.transpose.int(view_17, 1, 2)
        del view_17
        scaled_dot_product_attention_5 = aten.scaled_dot_product_attention.default(
            transpose_20, transpose_21, transpose_22, expand, scale=0.125
        )
        del transpose_20, transpose_21, transpose_22
        transpose_23 = aten.transpose.int(scaled_dot_product_attention_5, 1, 2)
        del scaled_dot_product_attention_5
        reshape_5 = aten.reshape.default(transpose_23, [batch, seq, -1])
        del transpose_23
        # bert.encoder.layer.5.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_33 = aten.linear.default(
            reshape_5,
            self.bert.encoder.layer[5].attention.output.dense.weight,
            self.bert.encoder.layer[5].attention.output.dense.bias,
        )
        del reshape_5
        # bert.encoder.layer.5.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_16 = aten.add.Tensor(linear_33, layer_norm_10)
        del linear_33, layer_norm_10
        # bert.encoder.layer.5.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_11 = aten.layer_norm.default(
            add_16,
            [768],
            self.bert.encoder.layer[5].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[5].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_16
        # bert.encoder.layer.5.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_34 = aten.linear.default(
            layer_norm_11,
            self.bert.encoder.layer[5].intermediate.dense.weight,
            self.bert.encoder.layer[5].intermediate.dense.bias,
        )
        # bert.encoder.layer.5.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_5 = aten.gelu.default(linear_34)
        del linear_34
        # bert.encoder.layer.5.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_35 = aten.linear.default(
            gelu_5, self.bert.encoder.layer[5].output.dense.weight, self.bert.encoder.layer[5].output.dense.bias
        )
        del gelu_5
        # bert.encoder.layer.5.output (transformers/models/bert/modeling_bert.py:350)
        add_17 = aten.add.Tensor(linear_35, layer_norm_11)
        del linear_35, layer_norm_11
        # bert.encoder.layer.5.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_12 = aten.layer_norm.default(
            add_17,
            [768],
            self.bert.encoder.layer[5].output.LayerNorm.weight,
            self.bert.encoder.layer[5].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_17
        # bert.encoder.layer.6.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_36 = aten.linear.default(
            layer_norm_12,
            self.bert.encoder.layer[6].attention.self.query.weight,
            self.bert.encoder.layer[6].attention.self.query.bias,
        )
        # bert.encoder.layer.6.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_18 = aten.view.default(linear_36, [batch, seq, -1, 64])
        del linear_36
        transpose_24 = aten.transpose.int(view_18, 1, 2)
        del view_18
        # bert.encoder.layer.6.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_37 = aten.linear.default(
            layer_norm_12,
            self.bert.encoder.layer[6].attention.self.key.weight,
            self.bert.encoder.layer[6].attention.self.key.bias,
        )
        # bert.encoder.layer.6.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_19 = aten.view.default(linear_37, [batch, seq, -1, 64])
        del linear_37
        transpose_25 = aten.transpose.int(view_19, 1, 2)
        del view_19
        # bert.encoder.layer.6.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_38 = aten.linear.default(
            layer_norm_12,
            self.bert.encoder.layer[6].attention.self.value.weight,
            self.bert.encoder.layer[6].attention.self.value.bias,
        )
        # bert.encoder.layer.6.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_20 = aten.view.default(linear_38, [batch, seq, -1, 64])
        del linear_38
        transpose_26 = aten.transpose.int(view_20, 1, 2)
        del view_20
        scaled_dot_product_attention_6 = aten.scaled_dot_product_attention.default(
            transpose_24, transpose_25, transpose_26, expand, scale=0.125
        )
        del transpose_24, transpose_25, transpose_26
        transpose_27 = aten.transpose.int(scaled_dot_product_attention_6, 1, 2)
        del scaled_dot_product_attention_6
        reshape_6 = aten.reshape.default(transpose_27, [batch, seq, -1])
        del transpose_27
        # bert.encoder.layer.6.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_39 = aten.linear.default(
            reshape_6,
            self.bert.encoder.layer[6].attention.output.dense.weight,
            self.bert.encoder.layer[6].attention.output.dense.bias,
        )
        del reshape_6
        # bert.encoder.layer.6.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_18 = aten.add.Tensor(linear_39, layer_norm_12)
        del linear_39, layer_norm_12
        # bert.encoder.layer.6.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_13 = aten.layer_norm.default(
            add_18,
            [768],
            self.bert.encoder.layer[6].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[6].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_18
        # bert.encoder.layer.6.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_40 = aten.linear.default(
            layer_norm_13,
            self.bert.encoder.layer[6].intermediate.dense.weight,
            self.bert.encoder.layer[6].intermediate.dense.bias,
        )
        # bert.encoder.layer.6.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_6 = aten.gelu.default(linear_40)
        del linear_40
        # bert.encoder.layer.6.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_41 = aten.linear.default(
            gelu_6, self.bert.encoder.layer[6].output.dense.weight, self.bert.encoder.layer[6].output.dense.bias
        )
        del gelu_6
        # bert.encoder.layer.6.output (transformers/models/bert/modeling_bert.py:350)
        add_19 = aten.add.Tensor(linear_41, layer_norm_13)
        del linear_41, layer_norm_13
        # bert.encoder.layer.6.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_14 = aten.layer_norm.default(
            add_19,
            [768],
            self.bert.encoder.layer[6].output.LayerNorm.weight,
            self.bert.encoder.layer[6].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_19
        # bert.encoder.layer.7.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_42 = aten.linear.default(
            layer_norm_14,
            self.bert.encoder.layer[7].attention.self.query.weight,
            self.bert.encoder.layer[7].attention.self.query.bias,
        )
        # bert.encoder.layer.7.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_21 = aten.view.default(linear_42, [batch, seq, -1, 64])
        del linear_42
        transpose_28 = aten.transpose.int(view_21, 1, 2)
        del view_21
        # bert.encoder.layer.7.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_43 = aten.linear.default(
            layer_norm_14,
            self.bert.encoder.layer[7].attention.self.key.weight,
            self.bert.encoder.layer[7].attention.self.key.bias,
        )
        # bert.encoder.layer.7.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_22 = aten.view.default(linear_43, [batch, seq, -1, 64])
        del linear_43
        transpose_29 = aten.transpose.int(view_22, 1, 2)
        del view_22
        # bert.encoder.layer.7.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_44 = aten.linear.default(
            layer_norm_14,
            self.bert.encoder.layer[7].attention.self.value.weight,
            self.bert.encoder.layer[7].attention.self.value.bias,
        )
        # bert.encoder.layer.7.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_23 = aten.view.default(linear_44, [batch, seq, -1, 64])
        del linear_44
        transpose_30 = aten.transpose.int(view_23, 1, 2)
        del view_23
        scaled_dot_product_attention_7 = aten.scaled_dot_product_attention.default(
            transpose_28, transpose_29, transpose_30, expand, scale=0.125
        )
        del transpose_28, transpose_29, transpose_30, expand
        transpose_31 = aten.transpose.int(scaled_dot_product_attention_7, 1, 2)
        del scaled_dot_product_attention_7
        reshape_7 = aten.reshape.default(transpose_31, [batch, seq, -1])
        del transpose_31
        # bert.encoder.layer.7.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_45 = aten.linear.default(
            reshape_7,
            self.bert.encoder.layer[7].attention.output.dense.weight,
            self.bert.encoder.layer[7].attention.output.dense.bias,
        )
        del reshape_7
        # bert.encoder.layer.7.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_20 = aten.add.Tensor(linear_45, layer_norm_14)
        del linear_45, layer_norm_14
        # bert.encoder.layer.7.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_15 = aten.layer_norm.default(
            add_20,
            [768],
            self.bert.encoder.layer[7].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[7].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_20
        # bert.encoder.layer.7.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_46 = aten.linear.default(
            layer_norm_15,
            self.bert.encoder.layer[7].intermediate.dense.weight,
            self.bert.encoder.layer[7].intermediate.dense.bias,
        )
        return (linear_46, layer_norm_15)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        for name in CONSTANTS:
            place(stage, name, tensors.pop(name), persistent=False)
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
