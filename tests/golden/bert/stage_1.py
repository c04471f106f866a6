"""bert, stage 1 of 2, for cpu.

takes    attention_mask: int64[batch, seq], an input of the model
takes    linear_46: float32[batch, seq, 3072], from stage 0
takes    layer_norm_15: float32[batch, seq, 768], from stage 0
returns  linear_73: float32[batch, seq, 30522], to output 0 of the model
holds    74 parameters, 209.0 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, linear_46, layer_norm_15)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "linear_46": (0, torch.float32, ("batch", "seq", 3072)),
    "layer_norm_15": (0, torch.float32, ("batch", "seq", 768)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear_73": ([], [0], torch.float32, ("batch", "seq", 30522)),
}

# name: (dtype, shape)
PARAMETERS = {
    "cls.predictions.decoder.weight": (torch.float32, (30522, 768)),
    "bert.encoder.layer.7.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.7.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.7.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.7.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.8.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.8.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.8.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.8.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.8.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.8.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.8.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.8.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.8.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.8.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.9.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.9.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.9.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.9.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.9.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.9.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.9.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.9.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.9.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.9.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.10.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.10.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.10.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.10.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.10.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.10.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.10.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.10.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.10.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.10.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.self.query.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.11.attention.self.query.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.self.key.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.11.attention.self.key.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.self.value.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.11.attention.self.value.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.output.dense.weight": (torch.float32, (768, 768)),
    "bert.encoder.layer.11.attention.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.11.attention.output.LayerNorm.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.intermediate.dense.weight": (torch.float32, (3072, 768)),
    "bert.encoder.layer.11.intermediate.dense.bias": (torch.float32, (3072,)),
    "bert.encoder.layer.11.output.dense.weight": (torch.float32, (768, 3072)),
    "bert.encoder.layer.11.output.dense.bias": (torch.float32, (768,)),
    "bert.encoder.layer.11.output.LayerNorm.weight": (torch.float32, (768,)),
    "bert.encoder.layer.11.output.LayerNorm.bias": (torch.float32, (768,)),
    "cls.predictions.decoder.bias": (torch.float32, (30522,)),
    "cls.predictions.transform.dense.weight": (torch.float32, (768, 768)),
    "cls.predictions.transform.dense.bias": (torch.float32, (768,)),
    "cls.predictions.transform.LayerNorm.weight": (torch.float32, (768,)),
    "cls.predictions.transform.LayerNorm.bias": (torch.float32, (768,)),
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


class Stage1(Block):
    def __init__(self):
        super().__init__()
        for name, (dtype, shape) in PARAMETERS.items():
            place(self, name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=dtype.is_floating_point))

    def forward(self, attention_mask, linear_46, layer_norm_15):
        batch = attention_mask.shape[0]
        seq = attention_mask.shape[1]
        device = attention_mask.device
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
        # bert.encoder.layer.7.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_7 = aten.gelu.default(linear_46)
        del linear_46
        # bert.encoder.layer.7.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_47 = aten.linear.default(
            gelu_7, self.bert.encoder.layer[7].output.dense.weight, self.bert.encoder.layer[7].output.dense.bias
        )
        del gelu_7
        # bert.encoder.layer.7.output (transformers/models/bert/modeling_bert.py:350)
        add_21 = aten.add.Tensor(linear_47, layer_norm_15)
        del linear_47, layer_norm_15
        # bert.encoder.layer.7.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_16 = aten.layer_norm.default(
            add_21,
            [768],
            self.bert.encoder.layer[7].output.LayerNorm.weight,
            self.bert.encoder.layer[7].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_21
        # bert.encoder.layer.8.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_48 = aten.linear.default(
            layer_norm_16,
            self.bert.encoder.layer[8].attention.self.query.weight,
            self.bert.encoder.layer[8].attention.self.query.bias,
        )
        # bert.encoder.layer.8.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_24 = aten.view.default(linear_48, [batch, seq, -1, 64])
        del linear_48
        transpose_32 = aten.transpose.int(view_24, 1, 2)
        del view_24
        # bert.encoder.layer.8.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_49 = aten.linear.default(
            layer_norm_16,
            self.bert.encoder.layer[8].attention.self.key.weight,
            self.bert.encoder.layer[8].attention.self.key.bias,
        )
        # bert.encoder.layer.8.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_25 = aten.view.default(linear_49, [batch, seq, -1, 64])
        del linear_49
        transpose_33 = aten.transpose.int(view_25, 1, 2)
        del view_25
        # bert.encoder.layer.8.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_50 = aten.linear.default(
            layer_norm_16,
            self.bert.encoder.layer[8].attention.self.value.weight,
            self.bert.encoder.layer[8].attention.self.value.bias,
        )
        # bert.encoder.layer.8.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_26 = aten.view.default(linear_50, [batch, seq, -1, 64])
        del linear_50
        transpose_34 = aten.transpose.int(view_26, 1, 2)
        del view_26
        scaled_dot_product_attention_8 = aten.scaled_dot_product_attention.default(
            transpose_32, transpose_33, transpose_34, expand, scale=0.125
        )
        del transpose_32, transpose_33, transpose_34
        transpose_35 = aten.transpose.int(scaled_dot_product_attention_8, 1, 2)
        del scaled_dot_product_attention_8
        reshape_8 = aten.reshape.default(transpose_35, [batch, seq, -1])
        del transpose_35
        # bert.encoder.layer.8.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_51 = aten.linear.default(
            reshape_8,
            self.bert.encoder.layer[8].attention.output.dense.weight,
            self.bert.encoder.layer[8].attention.output.dense.bias,
        )
        del reshape_8
        # bert.encoder.layer.8.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_22 = aten.add.Tensor(linear_51, layer_norm_16)
        del linear_51, layer_norm_16
        # bert.encoder.layer.8.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_17 = aten.layer_norm.default(
            add_22,
            [768],
            self.bert.encoder.layer[8].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[8].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_22
        # bert.encoder.layer.8.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_52 = aten.linear.default(
            layer_norm_17,
            self.bert.encoder.layer[8].intermediate.dense.weight,
            self.bert.encoder.layer[8].intermediate.dense.bias,
        )
        # bert.encoder.layer.8.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_8 = aten.gelu.default(linear_52)
        del linear_52
        # bert.encoder.layer.8.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_53 = aten.linear.default(
            gelu_8, self.bert.encoder.layer[8].output.dense.weight, self.bert.encoder.layer[8].output.dense.bias
        )
        del gelu_8
        # bert.encoder.layer.8.output (transformers/models/bert/modeling_bert.py:350)
        add_23 = aten.add.Tensor(linear_53, layer_norm_17)
        del linear_53, layer_norm_17
        # bert.encoder.layer.8.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_18 = aten.layer_norm.default(
            add_23,
            [768],
            self.bert.encoder.layer[8].output.LayerNorm.weight,
            self.bert.encoder.layer[8].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_23
        # bert.encoder.layer.9.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_54 = aten.linear.default(
            layer_norm_18,
            self.bert.encoder.layer[9].attention.self.query.weight,
            self.bert.encoder.layer[9].attention.self.query.bias,
        )
        # bert.encoder.layer.9.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_27 = aten.view.default(linear_54, [batch, seq, -1, 64])
        del linear_54
        transpose_36 = aten.transpose.int(view_27, 1, 2)
        del view_27
        # bert.encoder.layer.9.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_55 = aten.linear.default(
            layer_norm_18,
            self.bert.encoder.layer[9].attention.self.key.weight,
            self.bert.encoder.layer[9].attention.self.key.bias,
        )
        # bert.encoder.layer.9.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_28 = aten.view.default(linear_55, [batch, seq, -1, 64])
        del linear_55
        transpose_37 = aten.transpose.int(view_28, 1, 2)
        del view_28
        # bert.encoder.layer.9.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_56 = aten.linear.default(
            layer_norm_18,
            self.bert.encoder.layer[9].attention.self.value.weight,
            self.bert.encoder.layer[9].attention.self.value.bias,
        )
        # bert.encoder.layer.9.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_29 = aten.view.default(linear_56, [batch, seq, -1, 64])
        del linear_56
        transpose_38 = aten.transpose.int(view_29, 1, 2)
        del view_29
        scaled_dot_product_attention_9 = aten.scaled_dot_product_attention.default(
            transpose_36, transpose_37, transpose_38, expand, scale=0.125
        )
        del transpose_36, transpose_37, transpose_38
        transpose_39 = aten.transpose.int(scaled_dot_product_attention_9, 1, 2)
        del scaled_dot_product_attention_9
        reshape_9 = aten.reshape.default(transpose_39, [batch, seq, -1])
        del transpose_39
        # bert.encoder.layer.9.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_57 = aten.linear.default(
            reshape_9,
            self.bert.encoder.layer[9].attention.output.dense.weight,
            self.bert.encoder.layer[9].attention.output.dense.bias,
        )
        del reshape_9
        # bert.encoder.layer.9.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_24 = aten.add.Tensor(linear_57, layer_norm_18)
        del linear_57, layer_norm_18
        # bert.encoder.layer.9.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_19 = aten.layer_norm.default(
            add_24,
            [768],
            self.bert.encoder.layer[9].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[9].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_24
        # bert.encoder.layer.9.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_58 = aten.linear.default(
            layer_norm_19,
            self.bert.encoder.layer[9].intermediate.dense.weight,
            self.bert.encoder.layer[9].intermediate.dense.bias,
        )
        # bert.encoder.layer.9.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_9 = aten.gelu.default(linear_58)
        del linear_58
        # bert.encoder.layer.9.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_59 = aten.linear.default(
            gelu_9, self.bert.encoder.layer[9].output.dense.weight, self.bert.encoder.layer[9].output.dense.bias
        )
        del gelu_9
        # bert.encoder.layer.9.output (transformers/models/bert/modeling_bert.py:350)
        add_25 = aten.add.Tensor(linear_59, layer_norm_19)
        del linear_59, layer_norm_19
        # bert.encoder.layer.9.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_20 = aten.layer_norm.default(
            add_25,
            [768],
            self.bert.encoder.layer[9].output.LayerNorm.weight,
            self.bert.encoder.layer[9].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_25
        # bert.encoder.layer.10.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_60 = aten.linear.default(
            layer_norm_20,
            self.bert.encoder.layer[10].attention.self.query.weight,
            self.bert.encoder.layer[10].attention.self.query.bias,
        )
        # bert.encoder.layer.10.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_30 = aten.view.default(linear_60, [batch, seq, -1, 64])
        del linear_60
        transpose_40 = aten.transpose.int(view_30, 1, 2)
        del view_30
        # bert.encoder.layer.10.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_61 = aten.linear.default(
            layer_norm_20,
            self.bert.encoder.layer[10].attention.self.key.weight,
            self.bert.encoder.layer[10].attention.self.key.bias,
        )
        # bert.encoder.layer.10.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_31 = aten.view.default(linear_61, [batch, seq, -1, 64])
        del linear_61
        transpose_41 = aten.transpose.int(view_31, 1, 2)
        del view_31
        # bert.encoder.layer.10.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_62 = aten.linear.default(
            layer_norm_20,
            self.bert.encoder.layer[10].attention.self.value.weight,
            self.bert.encoder.layer[10].attention.self.value.bias,
        )
        # bert.encoder.layer.10.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_32 = aten.view.default(linear_62, [batch, seq, -1, 64])
        del linear_62
        transpose_42 = aten.transpose.int(view_32, 1, 2)
        del view_32
        scaled_dot_product_attention_10 = aten.scaled_dot_product_attention.default(
            transpose_40, transpose_41, transpose_42, expand, scale=0.125
        )
        del transpose_40, transpose_41, transpose_42
        transpose_43 = aten.transpose.int(scaled_dot_product_attention_10, 1, 2)
        del scaled_dot_product_attention_10
        reshape_10 = aten.reshape.default(transpose_43, [batch, seq, -1])
        del transpose_43
        # bert.encoder.layer.10.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_63 = aten.linear.default(
            reshape_10,
            self.bert.encoder.layer[10].attention.output.dense.weight,
            self.bert.encoder.layer[10].attention.output.dense.bias,
        )
        del reshape_10
        # bert.encoder.layer.10.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_26 = aten.add.Tensor(linear_63, layer_norm_20)
        del linear_63, layer_norm_20
        # bert.encoder.layer.10.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_21 = aten.layer_norm.default(
            add_26,
            [768],
            self.bert.encoder.layer[10].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[10].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_26
        # bert.encoder.layer.10.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_64 = aten.linear.default(
            layer_norm_21,
            self.bert.encoder.layer[10].intermediate.dense.weight,
            self.bert.encoder.layer[10].intermediate.dense.bias,
        )
        # bert.encoder.layer.10.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_10 = aten.gelu.default(linear_64)
        del linear_64
        # bert.encoder.layer.10.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_65 = aten.linear.default(
            gelu_10, self.bert.encoder.layer[10].output.dense.weight, self.bert.encoder.layer[10].output.dense.bias
        )
        del gelu_10
        # bert.encoder.layer.10.output (transformers/models/bert/modeling_bert.py:350)
        add_27 = aten.add.Tensor(linear_65, layer_norm_21)
        del linear_65, layer_norm_21
        # bert.encoder.layer.10.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_22 = aten.layer_norm.default(
            add_27,
            [768],
            self.bert.encoder.layer[10].output.LayerNorm.weight,
            self.bert.encoder.layer[10].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_27
        # bert.encoder.layer.11.attention.self.query (transformers/models/bert/modeling_bert.py:175)
        linear_66 = aten.linear.default(
            layer_norm_22,
            self.bert.encoder.layer[11].attention.self.query.weight,
            self.bert.encoder.layer[11].attention.self.query.bias,
        )
        # bert.encoder.layer.11.attention.self (transformers/models/bert/modeling_bert.py:175)
        view_33 = aten.view.default(linear_66, [batch, seq, -1, 64])
        del linear_66
        transpose_44 = aten.transpose.int(view_33, 1, 2)
        del view_33
        # bert.encoder.layer.11.attention.self.key (transformers/models/bert/modeling_bert.py:176)
        linear_67 = aten.linear.default(
            layer_norm_22,
            self.bert.encoder.layer[11].attention.self.key.weight,
            self.bert.encoder.layer[11].attention.self.key.bias,
        )
        # bert.encoder.layer.11.attention.self (transformers/models/bert/modeling_bert.py:176)
        view_34 = aten.view.default(linear_67, [batch, seq, -1, 64])
        del linear_67
        transpose_45 = aten.transpose.int(view_34, 1, 2)
        del view_34
        # bert.encoder.layer.11.attention.self.value (transformers/models/bert/modeling_bert.py:177)
        linear_68 = aten.linear.default(
            layer_norm_22,
            self.bert.encoder.layer[11].attention.self.value.weight,
            self.bert.encoder.layer[11].attention.self.value.bias,
        )
        # bert.encoder.layer.11.attention.self (transformers/models/bert/modeling_bert.py:177)
        view_35 = aten.view.default(linear_68, [batch, seq, -1, 64])
        del linear_68
        transpose_46 = aten.transpose.int(view_35, 1, 2)
        del view_35
        scaled_dot_product_attention_11 = aten.scaled_dot_product_attention.default(
            transpose_44, transpose_45, transpose_46, expand, scale=0.125
        )
        del transpose_44, transpose_45, transpose_46, expand
        transpose_47 = aten.transpose.int(scaled_dot_product_attention_11, 1, 2)
        del scaled_dot_product_attention_11
        reshape_11 = aten.reshape.default(transpose_47, [batch, seq, -1])
        del transpose_47
        # bert.encoder.layer.11.attention.output.dense (transformers/models/bert/modeling_bert.py:290)
        linear_69 = aten.linear.default(
            reshape_11,
            self.bert.encoder.layer[11].attention.output.dense.weight,
            self.bert.encoder.layer[11].attention.output.dense.bias,
        )
        del reshape_11
        # bert.encoder.layer.11.attention.output (transformers/models/bert/modeling_bert.py:292)
        add_28 = aten.add.Tensor(linear_69, layer_norm_22)
        del linear_69, layer_norm_22
        # bert.encoder.layer.11.attention.output.LayerNorm (transformers/models/bert/modeling_bert.py:292)
        layer_norm_23 = aten.layer_norm.default(
            add_28,
            [768],
            self.bert.encoder.layer[11].attention.output.LayerNorm.weight,
            self.bert.encoder.layer[11].attention.output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_28
        # bert.encoder.layer.11.intermediate.dense (transformers/models/bert/modeling_bert.py:335)
        linear_70 = aten.linear.default(
            layer_norm_23,
            self.bert.encoder.layer[11].intermediate.dense.weight,
            self.bert.encoder.layer[11].intermediate.dense.bias,
        )
        # bert.encoder.layer.11.intermediate.intermediate_act_fn (transformers/activations.py:89)
        gelu_11 = aten.gelu.default(linear_70)
        del linear_70
        # bert.encoder.layer.11.output.dense (transformers/models/bert/modeling_bert.py:348)
        linear_71 = aten.linear.default(
            gelu_11, self.bert.encoder.layer[11].output.dense.weight, self.bert.encoder.layer[11].output.dense.bias
        )
        del gelu_11
        # bert.encoder.layer.11.output (transformers/models/bert/modeling_bert.py:350)
        add_29 = aten.add.Tensor(linear_71, layer_norm_23)
        del linear_71, layer_norm_23
        # bert.encoder.layer.11.output.LayerNorm (transformers/models/bert/modeling_bert.py:350)
        layer_norm_24 = aten.layer_norm.default(
            add_29,
            [768],
            self.bert.encoder.layer[11].output.LayerNorm.weight,
            self.bert.encoder.layer[11].output.LayerNorm.bias,
            1e-12,
            False,
        )
        del add_29
        # cls.predictions.transform.dense (transformers/models/bert/modeling_bert.py:477)
        linear_72 = aten.linear.default(
            layer_norm_24, self.cls.predictions.transform.dense.weight, self.cls.predictions.transform.dense.bias
        )
        del layer_norm_24
        # cls.predictions.transform.transform_act_fn (transformers/activations.py:89)
        gelu_12 = aten.gelu.default(linear_72)
        del linear_72
        # cls.predictions.transform.LayerNorm (transformers/models/bert/modeling_bert.py:479)
        layer_norm_25 = aten.layer_norm.default(
            gelu_12,
            [768],
            self.cls.predictions.transform.LayerNorm.weight,
            self.cls.predictions.transform.LayerNorm.bias,
            1e-12,
            False,
        )
        del gelu_12
        # cls.predictions.decoder (transformers/models/bert/modeling_bert.py:495)
        linear_73 = aten.linear.default(
            layer_norm_25, self.cls.predictions.decoder.weight, self.cls.predictions.decoder.bias
        )
        del layer_norm_25
        return (linear_73,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
