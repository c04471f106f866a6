"""gpt2, stage 1 of 2, for cpu.

takes    attention_mask: int64[batch, seq], an input of the model
takes    add_37: float32[batch, seq, 768], from stage 0
returns  linear: float32[batch, seq, 50257], to output 0 of the model
holds    45 parameters, 246.4 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, add_37)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "attention_mask": (None, torch.int64, ("batch", "seq")),
    "add_37": (0, torch.float32, ("batch", "seq", 768)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear": ([], [0], torch.float32, ("batch", "seq", 50257)),
}

# name: (dtype, shape)
PARAMETERS = {
    "lm_head.weight": (torch.float32, (50257, 768)),
    "transformer.h.8.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.8.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.8.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.8.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.8.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.8.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.9.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.9.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.9.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.9.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.9.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.9.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.9.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.9.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.9.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.9.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.9.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.9.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.10.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.10.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.10.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.10.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.10.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.10.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.10.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.10.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.10.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.10.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.10.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.10.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.11.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.11.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.11.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.11.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.11.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.11.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.11.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.11.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.11.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.11.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.11.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.11.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.ln_f.weight": (torch.float32, (768,)),
    "transformer.ln_f.bias": (torch.float32, (768,)),
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

    def forward(self, attention_mask, add_37):
        batch = attention_mask.shape[0]
        seq = attention_mask.shape[1]
        device = attention_mask.device
        # transformer (transformers/models/gpt2/modeling_gpt2.py:581)
        view_1 = aten.view.default(attention_mask, [batch, -1])
        del attention_mask
        to_1 = aten.to.device(view_1, device, torch.bool)
        del view_1
        arange_1 = aten.arange.default(batch, device=device)
        arange_3 = aten.arange.default(seq, device=device)
        add_3 = aten.add.Tensor(arange_3, 0)
        del arange_3
        arange_4 = aten.arange.default(seq, device=device)
        add_4 = aten.add.Tensor(arange_4, 0)
        del arange_4
        unsqueeze_1 = aten.unsqueeze.default(arange_1, 1)
        del arange_1
        unsqueeze_2 = aten.unsqueeze.default(unsqueeze_1, 2)
        del unsqueeze_1
        unsqueeze_3 = aten.unsqueeze.default(unsqueeze_2, 3)
        del unsqueeze_2
        unsqueeze_7 = aten.unsqueeze.default(add_3, 0)
        del add_3
        unsqueeze_8 = aten.unsqueeze.default(unsqueeze_7, 1)
        del unsqueeze_7
        unsqueeze_9 = aten.unsqueeze.default(unsqueeze_8, 3)
        del unsqueeze_8
        unsqueeze_10 = aten.unsqueeze.default(add_4, 0)
        del add_4
        unsqueeze_11 = aten.unsqueeze.default(unsqueeze_10, 1)
        del unsqueeze_10
        unsqueeze_12 = aten.unsqueeze.default(unsqueeze_11, 2)
        del unsqueeze_11
        new_ones = aten.new_ones.default(unsqueeze_9, [], dtype=torch.bool)
        le_3 = aten.le.Tensor(unsqueeze_12, unsqueeze_9)
        del unsqueeze_9
        and_1 = aten.__and__.Tensor(new_ones, le_3)
        del new_ones, le_3
        index = aten.index.Tensor(to_1, [unsqueeze_3, unsqueeze_12])
        del to_1, unsqueeze_3, unsqueeze_12
        and_2 = aten.__and__.Tensor(and_1, index)
        del and_1, index
        expand = aten.expand.default(and_2, [batch, -1, seq, seq])
        del and_2
        # transformer.h.8.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_17 = aten.layer_norm.default(
            add_37, [768], self.transformer.h[8].ln_2.weight, self.transformer.h[8].ln_2.bias, 1e-05, False
        )
        # transformer.h.8.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_97 = aten.view.default(layer_norm_17, [-1, 768])
        del layer_norm_17
        addmm_34 = aten.addmm.default(
            self.transformer.h[8].mlp.c_fc.bias, view_97, self.transformer.h[8].mlp.c_fc.weight
        )
        del view_97
        view_98 = aten.view.default(addmm_34, [batch, seq, 3072])
        del addmm_34
        # transformer.h.8.mlp.act (transformers/activations.py:66)
        mul_48 = aten.mul.Tensor(view_98, 0.5)
        pow_9 = aten.pow.Tensor_Scalar(view_98, 3.0)
        mul_49 = aten.mul.Tensor(pow_9, 0.044715)
        del pow_9
        add_38 = aten.add.Tensor(view_98, mul_49)
        del view_98, mul_49
        mul_50 = aten.mul.Tensor(add_38, 0.7978845608028654)
        del add_38
        tanh_8 = aten.tanh.default(mul_50)
        del mul_50
        add_39 = aten.add.Tensor(tanh_8, 1.0)
        del tanh_8
        mul_51 = aten.mul.Tensor(mul_48, add_39)
        del mul_48, add_39
        # transformer.h.8.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_99 = aten.view.default(mul_51, [-1, 3072])
        del mul_51
        addmm_35 = aten.addmm.default(
            self.transformer.h[8].mlp.c_proj.bias, view_99, self.transformer.h[8].mlp.c_proj.weight
        )
        del view_99
        view_100 = aten.view.default(addmm_35, [batch, seq, 768])
        del addmm_35
        # transformer.h.8 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_40 = aten.add.Tensor(add_37, view_100)
        del add_37, view_100
        # transformer.h.9.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_18 = aten.layer_norm.default(
            add_40, [768], self.transformer.h[9].ln_1.weight, self.transformer.h[9].ln_1.bias, 1e-05, False
        )
        # transformer.h.9.attn.c_attn (transformers/pytorch_utils.py:119)
        view_101 = aten.view.default(layer_norm_18, [-1, 768])
        del layer_norm_18
        addmm_36 = aten.addmm.default(
            self.transformer.h[9].attn.c_attn.bias, view_101, self.transformer.h[9].attn.c_attn.weight
        )
        del view_101
        view_102 = aten.view.default(addmm_36, [batch, seq, 2304])
        del addmm_36
        # transformer.h.9.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_27, getitem_28, getitem_29 = aten.split.Tensor(view_102, 768, 2)
        del view_102
        view_103 = aten.view.default(getitem_28, [batch, seq, -1, 64])
        del getitem_28
        transpose_36 = aten.transpose.int(view_103, 1, 2)
        del view_103
        view_104 = aten.view.default(getitem_29, [batch, seq, -1, 64])
        del getitem_29
        transpose_37 = aten.transpose.int(view_104, 1, 2)
        del view_104
        view_105 = aten.view.default(getitem_27, [batch, seq, -1, 64])
        del getitem_27
        transpose_38 = aten.transpose.int(view_105, 1, 2)
        del view_105
        scaled_dot_product_attention_9 = aten.scaled_dot_product_attention.default(
            transpose_38, transpose_36, transpose_37, expand, scale=0.125
        )
        del transpose_38, transpose_36, transpose_37
        transpose_39 = aten.transpose.int(scaled_dot_product_attention_9, 1, 2)
        del scaled_dot_product_attention_9
        reshape_9 = aten.reshape.default(transpose_39, [batch, seq, -1])
        del transpose_39
        # transformer.h.9.attn.c_proj (transformers/pytorch_utils.py:119)
        view_106 = aten.view.default(reshape_9, [-1, 768])
        del reshape_9
        addmm_37 = aten.addmm.default(
            self.transformer.h[9].attn.c_proj.bias, view_106, self.transformer.h[9].attn.c_proj.weight
        )
        del view_106
        view_107 = aten.view.default(addmm_37, [batch, seq, 768])
        del addmm_37
        # transformer.h.9 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_41 = aten.add.Tensor(view_107, add_40)
        del view_107, add_40
        # transformer.h.9.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_19 = aten.layer_norm.default(
            add_41, [768], self.transformer.h[9].ln_2.weight, self.transformer.h[9].ln_2.bias, 1e-05, False
        )
        # transformer.h.9.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_108 = aten.view.default(layer_norm_19, [-1, 768])
        del layer_norm_19
        addmm_38 = aten.addmm.default(
            self.transformer.h[9].mlp.c_fc.bias, view_108, self.transformer.h[9].mlp.c_fc.weight
        )
        del view_108
        view_109 = aten.view.default(addmm_38, [batch, seq, 3072])
        del addmm_38
        # transformer.h.9.mlp.act (transformers/activations.py:66)
        mul_52 = aten.mul.Tensor(view_109, 0.5)
        pow_10 = aten.pow.Tensor_Scalar(view_109, 3.0)
        mul_53 = aten.mul.Tensor(pow_10, 0.044715)
        del pow_10
        add_42 = aten.add.Tensor(view_109, mul_53)
        del view_109, mul_53
        mul_54 = aten.mul.Tensor(add_42, 0.7978845608028654)
        del add_42
        tanh_9 = aten.tanh.default(mul_54)
        del mul_54
        add_43 = aten.add.Tensor(tanh_9, 1.0)
        del tanh_9
        mul_55 = aten.mul.Tensor(mul_52, add_43)
        del mul_52, add_43
        # transformer.h.9.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_110 = aten.view.default(mul_55, [-1, 3072])
        del mul_55
        addmm_39 = aten.addmm.default(
            self.transformer.h[9].mlp.c_proj.bias, view_110, self.transformer.h[9].mlp.c_proj.weight
        )
        del view_110
        view_111 = aten.view.default(addmm_39, [batch, seq, 768])
        del addmm_39
        # transformer.h.9 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_44 = aten.add.Tensor(add_41, view_111)
        del add_41, view_111
        # transformer.h.10.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_20 = aten.layer_norm.default(
            add_44, [768], self.transformer.h[10].ln_1.weight, self.transformer.h[10].ln_1.bias, 1e-05, False
        )
        # transformer.h.10.attn.c_attn (transformers/pytorch_utils.py:119)
        view_112 = aten.view.default(layer_norm_20, [-1, 768])
        del layer_norm_20
        addmm_40 = aten.addmm.default(
            self.transformer.h[10].attn.c_attn.bias, view_112, self.transformer.h[10].attn.c_attn.weight
        )
        del view_112
        view_113 = aten.view.default(addmm_40, [batch, seq, 2304])
        del addmm_40
        # transformer.h.10.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_30, getitem_31, getitem_32 = aten.split.Tensor(view_113, 768, 2)
        del view_113
        view_114 = aten.view.default(getitem_31, [batch, seq, -1, 64])
        del getitem_31
        transpose_40 = aten.transpose.int(view_114, 1, 2)
        del view_114
        view_115 = aten.view.default(getitem_32, [batch, seq, -1, 64])
        del getitem_32
        transpose_41 = aten.transpose.int(view_115, 1, 2)
        del view_115
        view_116 = aten.view.default(getitem_30, [batch, seq, -1, 64])
        del getitem_30
        transpose_42 = aten.transpose.int(view_116, 1, 2)
        del view_116
        scaled_dot_product_attention_10 = aten.scaled_dot_product_attention.default(
            transpose_42, transpose_40, transpose_41, expand, scale=0.125
        )
        del transpose_42, transpose_40, transpose_41
        transpose_43 = aten.transpose.int(scaled_dot_product_attention_10, 1, 2)
        del scaled_dot_product_attention_10
        reshape_10 = aten.reshape.default(transpose_43, [batch, seq, -1])
        del transpose_43
        # transformer.h.10.attn.c_proj (transformers/pytorch_utils.py:119)
        view_117 = aten.view.default(reshape_10, [-1, 768])
        del reshape_10
        addmm_41 = aten.addmm.default(
            self.transformer.h[10].attn.c_proj.bias, view_117, self.transformer.h[10].attn.c_proj.weight
        )
        del view_117
        view_118 = aten.view.default(addmm_41, [batch, seq, 768])
        del addmm_41
        # transformer.h.10 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_45 = aten.add.Tensor(view_118, add_44)
        del view_118, add_44
        # transformer.h.10.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_21 = aten.layer_norm.default(
            add_45, [768], self.transformer.h[10].ln_2.weight, self.transformer.h[10].ln_2.bias, 1e-05, False
        )
        # transformer.h.10.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_119 = aten.view.default(layer_norm_21, [-1, 768])
        del layer_norm_21
        addmm_42 = aten.addmm.default(
            self.transformer.h[10].mlp.c_fc.bias, view_119, self.transformer.h[10].mlp.c_fc.weight
        )
        del view_119
        view_120 = aten.view.default(addmm_42, [batch, seq, 3072])
        del addmm_42
        # transformer.h.10.mlp.act (transformers/activations.py:66)
        mul_56 = aten.mul.Tensor(view_120, 0.5)
        pow_11 = aten.pow.Tensor_Scalar(view_120, 3.0)
        mul_57 = aten.mul.Tensor(pow_11, 0.044715)
        del pow_11
        add_46 = aten.add.Tensor(view_120, mul_57)
        del view_120, mul_57
        mul_58 = aten.mul.Tensor(add_46, 0.7978845608028654)
        del add_46
        tanh_10 = aten.tanh.default(mul_58)
        del mul_58
        add_47 = aten.add.Tensor(tanh_10, 1.0)
        del tanh_10
        mul_59 = aten.mul.Tensor(mul_56, add_47)
        del mul_56, add_47
        # transformer.h.10.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_121 = aten.view.default(mul_59, [-1, 3072])
        del mul_59
        addmm_43 = aten.addmm.default(
            self.transformer.h[10].mlp.c_proj.bias, view_121, self.transformer.h[10].mlp.c_proj.weight
        )
        del view_121
        view_122 = aten.view.default(addmm_43, [batch, seq, 768])
        del addmm_43
        # transformer.h.10 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_48 = aten.add.Tensor(add_45, view_122)
        del add_45, view_122
        # transformer.h.11.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_22 = aten.layer_norm.default(
            add_48, [768], self.transformer.h[11].ln_1.weight, self.transformer.h[11].ln_1.bias, 1e-05, False
        )
        # transformer.h.11.attn.c_attn (transformers/pytorch_utils.py:119)
        view_123 = aten.view.default(layer_norm_22, [-1, 768])
        del layer_norm_22
        addmm_44 = aten.addmm.default(
            self.transformer.h[11].attn.c_attn.bias, view_123, self.transformer.h[11].attn.c_attn.weight
        )
        del view_123
        view_124 = aten.view.default(addmm_44, [batch, seq, 2304])
        del addmm_44
        # transformer.h.11.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_33, getitem_34, getitem_35 = aten.split.Tensor(view_124, 768, 2)
        del view_124
        view_125 = aten.view.default(getitem_34, [batch, seq, -1, 64])
        del getitem_34
        transpose_44 = aten.transpose.int(view_125, 1, 2)
        del view_125
        view_126 = aten.view.default(getitem_35, [batch, seq, -1, 64])
        del getitem_35
        transpose_45 = aten.transpose.int(view_126, 1, 2)
        del view_126
        view_127 = aten.view.default(getitem_33, [batch, seq, -1, 64])
        del getitem_33
        transpose_46 = aten.transpose.int(view_127, 1, 2)
        del view_127
        scaled_dot_product_attention_11 = aten.scaled_dot_product_attention.default(
            transpose_46, transpose_44, transpose_45, expand, scale=0.125
        )
        del transpose_46, transpose_44, transpose_45, expand
        transpose_47 = aten.transpose.int(scaled_dot_product_attention_11, 1, 2)
        del scaled_dot_product_attention_11
        reshape_11 = aten.reshape.default(transpose_47, [batch, seq, -1])
        del transpose_47
        # transformer.h.11.attn.c_proj (transformers/pytorch_utils.py:119)
        view_128 = aten.view.default(reshape_11, [-1, 768])
        del reshape_11
        addmm_45 = aten.addmm.default(
            self.transformer.h[11].attn.c_proj.bias, view_128, self.transformer.h[11].attn.c_proj.weight
        )
        del view_128
        view_129 = aten.view.default(addmm_45, [batch, seq, 768])
        del addmm_45
        # transformer.h.11 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_49 = aten.add.Tensor(view_129, add_48)
        del view_129, add_48
        # transformer.h.11.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_23 = aten.layer_norm.default(
            add_49, [768], self.transformer.h[11].ln_2.weight, self.transformer.h[11].ln_2.bias, 1e-05, False
        )
        # transformer.h.11.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_130 = aten.view.default(layer_norm_23, [-1, 768])
        del layer_norm_23
        addmm_46 = aten.addmm.default(
            self.transformer.h[11].mlp.c_fc.bias, view_130, self.transformer.h[11].mlp.c_fc.weight
        )
        del view_130
        view_131 = aten.view.default(addmm_46, [batch, seq, 3072])
        del addmm_46
        # transformer.h.11.mlp.act (transformers/activations.py:66)
        mul_60 = aten.mul.Tensor(view_131, 0.5)
        pow_12 = aten.pow.Tensor_Scalar(view_131, 3.0)
        mul_61 = aten.mul.Tensor(pow_12, 0.044715)
        del pow_12
        add_50 = aten.add.Tensor(view_131, mul_61)
        del view_131, mul_61
        mul_62 = aten.mul.Tensor(add_50, 0.7978845608028654)
        del add_50
        tanh_11 = aten.tanh.default(mul_62)
        del mul_62
        add_51 = aten.add.Tensor(tanh_11, 1.0)
        del tanh_11
        mul_63 = aten.mul.Tensor(mul_60, add_51)
        del mul_60, add_51
        # transformer.h.11.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_132 = aten.view.default(mul_63, [-1, 3072])
        del mul_63
        addmm_47 = aten.addmm.default(
            self.transformer.h[11].mlp.c_proj.bias, view_132, self.transformer.h[11].mlp.c_proj.weight
        )
        del view_132
        view_133 = aten.view.default(addmm_47, [batch, seq, 768])
        del addmm_47
        # transformer.h.11 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_52 = aten.add.Tensor(add_49, view_133)
        del add_49, view_133
        # transformer.ln_f (transformers/models/gpt2/modeling_gpt2.py:619)
        layer_norm_24 = aten.layer_norm.default(
            add_52, [768], self.transformer.ln_f.weight, self.transformer.ln_f.bias, 1e-05, False
        )
        del add_52
        # transformer (transformers/models/gpt2/modeling_gpt2.py:621)
        view_134 = aten.view.default(layer_norm_24, [-1, seq, 768])
        del layer_norm_24
        # lm_head (transformers/models/gpt2/modeling_gpt2.py:697)
        linear = aten.linear.default(view_134, self.lm_head.weight)
        del view_134
        return (linear,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
