"""gpt2, stage 0 of 2, for cpu.

takes    input_ids: int64[batch, seq], an input of the model
takes    attention_mask: int64[batch, seq], an input of the model
returns  add_37: float32[batch, seq, 768], to stage 1
holds    104 parameters, 375.6 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(input_ids, attention_mask)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "input_ids": (None, torch.int64, ("batch", "seq")),
    "attention_mask": (None, torch.int64, ("batch", "seq")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "add_37": ([1], [], torch.float32, ("batch", "seq", 768)),
}

# name: (dtype, shape)
PARAMETERS = {
    "transformer.wte.weight": (torch.float32, (50257, 768)),
    "transformer.wpe.weight": (torch.float32, (1024, 768)),
    "transformer.h.0.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.0.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.0.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.0.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.0.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.0.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.0.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.0.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.0.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.0.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.0.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.0.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.1.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.1.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.1.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.1.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.1.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.1.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.1.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.1.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.1.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.1.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.1.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.1.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.2.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.2.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.2.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.2.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.2.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.2.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.2.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.2.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.2.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.2.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.2.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.2.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.3.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.3.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.3.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.3.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.3.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.3.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.3.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.3.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.3.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.3.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.3.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.3.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.4.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.4.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.4.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.4.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.4.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.4.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.4.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.4.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.4.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.4.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.4.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.4.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.5.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.5.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.5.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.5.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.5.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.5.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.5.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.5.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.5.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.5.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.5.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.5.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.6.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.6.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.6.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.6.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.6.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.6.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.6.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.6.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.6.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.6.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.6.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.6.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.7.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.7.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.7.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.7.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.7.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.7.attn.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.7.ln_2.weight": (torch.float32, (768,)),
    "transformer.h.7.ln_2.bias": (torch.float32, (768,)),
    "transformer.h.7.mlp.c_fc.weight": (torch.float32, (768, 3072)),
    "transformer.h.7.mlp.c_fc.bias": (torch.float32, (3072,)),
    "transformer.h.7.mlp.c_proj.weight": (torch.float32, (3072, 768)),
    "transformer.h.7.mlp.c_proj.bias": (torch.float32, (768,)),
    "transformer.h.8.ln_1.weight": (torch.float32, (768,)),
    "transformer.h.8.ln_1.bias": (torch.float32, (768,)),
    "transformer.h.8.attn.c_attn.weight": (torch.float32, (768, 2304)),
    "transformer.h.8.attn.c_attn.bias": (torch.float32, (2304,)),
    "transformer.h.8.attn.c_proj.weight": (torch.float32, (768, 768)),
    "transformer.h.8.attn.c_proj.bias": (torch.float32, (768,)),
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

    def forward(self, input_ids, attention_mask):
        batch = input_ids.shape[0]
        seq = input_ids.shape[1]
        device = input_ids.device
        # transformer (transformers/models/gpt2/modeling_gpt2.py:549)
        view = aten.view.default(input_ids, [-1, seq])
        del input_ids
        # transformer.wte (transformers/models/gpt2/modeling_gpt2.py:569)
        embedding = aten.embedding.default(self.transformer.wte.weight, view)
        del view
        # transformer (transformers/models/gpt2/modeling_gpt2.py:573)
        arange = aten.arange.default(seq, device=device)
        add = aten.add.Tensor(arange, 0)
        del arange
        unsqueeze = aten.unsqueeze.default(add, 0)
        del add
        # transformer.wpe (transformers/models/gpt2/modeling_gpt2.py:576)
        embedding_1 = aten.embedding.default(self.transformer.wpe.weight, unsqueeze)
        del unsqueeze
        # transformer (transformers/models/gpt2/modeling_gpt2.py:577)
        add_1 = aten.add.Tensor(embedding, embedding_1)
        del embedding, embedding_1
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
        # transformer.h.0.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm = aten.layer_norm.default(
            add_1, [768], self.transformer.h[0].ln_1.weight, self.transformer.h[0].ln_1.bias, 1e-05, False
        )
        # transformer.h.0.attn.c_attn (transformers/pytorch_utils.py:119)
        view_2 = aten.view.default(layer_norm, [-1, 768])
        del layer_norm
        addmm = aten.addmm.default(
            self.transformer.h[0].attn.c_attn.bias, view_2, self.transformer.h[0].attn.c_attn.weight
        )
        del view_2
        view_3 = aten.view.default(addmm, [batch, seq, 2304])
        del addmm
        # transformer.h.0.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem, getitem_1, getitem_2 = aten.split.Tensor(view_3, 768, 2)
        del view_3
        view_4 = aten.view.default(getitem_1, [batch, seq, -1, 64])
        del getitem_1
        transpose = aten.transpose.int(view_4, 1, 2)
        del view_4
        view_5 = aten.view.default(getitem_2, [batch, seq, -1, 64])
        del getitem_2
        transpose_1 = aten.transpose.int(view_5, 1, 2)
        del view_5
        view_6 = aten.view.default(getitem, [batch, seq, -1, 64])
        del getitem
        transpose_2 = aten.transpose.int(view_6, 1, 2)
        del view_6
        scaled_dot_product_attention = aten.scaled_dot_product_attention.default(
            transpose_2, transpose, transpose_1, expand, scale=0.125
        )
        del transpose_2, transpose, transpose_1
        transpose_3 = aten.transpose.int(scaled_dot_product_attention, 1, 2)
        del scaled_dot_product_attention
        reshape = aten.reshape.default(transpose_3, [batch, seq, -1])
        del transpose_3
        # transformer.h.0.attn.c_proj (transformers/pytorch_utils.py:119)
        view_7 = aten.view.default(reshape, [-1, 768])
        del reshape
        addmm_1 = aten.addmm.default(
            self.transformer.h[0].attn.c_proj.bias, view_7, self.transformer.h[0].attn.c_proj.weight
        )
        del view_7
        view_8 = aten.view.default(addmm_1, [batch, seq, 768])
        del addmm_1
        # transformer.h.0 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_5 = aten.add.Tensor(view_8, add_1)
        del view_8, add_1
        # transformer.h.0.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_1 = aten.layer_norm.default(
            add_5, [768], self.transformer.h[0].ln_2.weight, self.transformer.h[0].ln_2.bias, 1e-05, False
        )
        # transformer.h.0.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_9 = aten.view.default(layer_norm_1, [-1, 768])
        del layer_norm_1
        addmm_2 = aten.addmm.default(self.transformer.h[0].mlp.c_fc.bias, view_9, self.transformer.h[0].mlp.c_fc.weight)
        del view_9
        view_10 = aten.view.default(addmm_2, [batch, seq, 3072])
        del addmm_2
        # transformer.h.0.mlp.act (transformers/activations.py:66)
        mul_8 = aten.mul.Tensor(view_10, 0.5)
        pow_1 = aten.pow.Tensor_Scalar(view_10, 3.0)
        mul_9 = aten.mul.Tensor(pow_1, 0.044715)
        del pow_1
        add_6 = aten.add.Tensor(view_10, mul_9)
        del view_10, mul_9
        mul_10 = aten.mul.Tensor(add_6, 0.7978845608028654)
        del add_6
        tanh = aten.tanh.default(mul_10)
        del mul_10
        add_7 = aten.add.Tensor(tanh, 1.0)
        del tanh
        mul_11 = aten.mul.Tensor(mul_8, add_7)
        del mul_8, add_7
        # transformer.h.0.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_11 = aten.view.default(mul_11, [-1, 3072])
        del mul_11
        addmm_3 = aten.addmm.default(
            self.transformer.h[0].mlp.c_proj.bias, view_11, self.transformer.h[0].mlp.c_proj.weight
        )
        del view_11
        view_12 = aten.view.default(addmm_3, [batch, seq, 768])
        del addmm_3
        # transformer.h.0 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_8 = aten.add.Tensor(add_5, view_12)
        del add_5, view_12
        # transformer.h.1.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_2 = aten.layer_norm.default(
            add_8, [768], self.transformer.h[1].ln_1.weight, self.transformer.h[1].ln_1.bias, 1e-05, False
        )
        # transformer.h.1.attn.c_attn (transformers/pytorch_utils.py:119)
        view_13 = aten.view.default(layer_norm_2, [-1, 768])
        del layer_norm_2
        addmm_4 = aten.addmm.default(
            self.transformer.h[1].attn.c_attn.bias, view_13, self.transformer.h[1].attn.c_attn.weight
        )
        del view_13
        view_14 = aten.view.default(addmm_4, [batch, seq, 2304])
        del addmm_4
        # transformer.h.1.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_3, getitem_4, getitem_5 = aten.split.Tensor(view_14, 768, 2)
        del view_14
        view_15 = aten.view.default(getitem_4, [batch, seq, -1, 64])
        del getitem_4
        transpose_4 = aten.transpose.int(view_15, 1, 2)
        del view_15
        view_16 = aten.view.default(getitem_5, [batch, seq, -1, 64])
        del getitem_5
        transpose_5 = aten.transpose.int(view_16, 1, 2)
        del view_16
        view_17 = aten.view.default(getitem_3, [batch, seq, -1, 64])
        del getitem_3
        transpose_6 = aten.transpose.int(view_17, 1, 2)
        del view_17
        scaled_dot_product_attention_1 = aten.scaled_dot_product_attention.default(
            transpose_6, transpose_4, transpose_5, expand, scale=0.125
        )
        del transpose_6, transpose_4, transpose_5
        transpose_7 = aten.transpose.int(scaled_dot_product_attention_1, 1, 2)
        del scaled_dot_product_attention_1
        reshape_1 = aten.reshape.default(transpose_7, [batch, seq, -1])
        del transpose_7
        # transformer.h.1.attn.c_proj (transformers/pytorch_utils.py:119)
        view_18 = aten.view.default(reshape_1, [-1, 768])
        del reshape_1
        addmm_5 = aten.addmm.default(
            self.transformer.h[1].attn.c_proj.bias, view_18, self.transformer.h[1].attn.c_proj.weight
        )
        del view_18
        view_19 = aten.view.default(addmm_5, [batch, seq, 768])
        del addmm_5
        # transformer.h.1 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_9 = aten.add.Tensor(view_19, add_8)
        del view_19, add_8
        # transformer.h.1.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_3 = aten.layer_norm.default(
            add_9, [768], self.transformer.h[1].ln_2.weight, self.transformer.h[1].ln_2.bias, 1e-05, False
        )
        # transformer.h.1.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_20 = aten.view.default(layer_norm_3, [-1, 768])
        del layer_norm_3
        addmm_6 = aten.addmm.default(
            self.transformer.h[1].mlp.c_fc.bias, view_20, self.transformer.h[1].mlp.c_fc.weight
        )
        del view_20
        view_21 = aten.view.default(addmm_6, [batch, seq, 3072])
        del addmm_6
        # transformer.h.1.mlp.act (transformers/activations.py:66)
        mul_12 = aten.mul.Tensor(view_21, 0.5)
        pow_2 = aten.pow.Tensor_Scalar(view_21, 3.0)
        mul_13 = aten.mul.Tensor(pow_2, 0.044715)
        del pow_2
        add_10 = aten.add.Tensor(view_21, mul_13)
        del view_21, mul_13
        mul_14 = aten.mul.Tensor(add_10, 0.7978845608028654)
        del add_10
        tanh_1 = aten.tanh.default(mul_14)
        del mul_14
        add_11 = aten.add.Tensor(tanh_1, 1.0)
        del tanh_1
        mul_15 = aten.mul.Tensor(mul_12, add_11)
        del mul_12, add_11
        # transformer.h.1.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_22 = aten.view.default(mul_15, [-1, 3072])
        del mul_15
        addmm_7 = aten.addmm.default(
            self.transformer.h[1].mlp.c_proj.bias, view_22, self.transformer.h[1].mlp.c_proj.weight
        )
        del view_22
        view_23 = aten.view.default(addmm_7, [batch, seq, 768])
        del addmm_7
        # transformer.h.1 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_12 = aten.add.Tensor(add_9, view_23)
        del add_9, view_23
        # transformer.h.2.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_4 = aten.layer_norm.default(
            add_12, [768], self.transformer.h[2].ln_1.weight, self.transformer.h[2].ln_1.bias, 1e-05, False
        )
        # transformer.h.2.attn.c_attn (transformers/pytorch_utils.py:119)
        view_24 = aten.view.default(layer_norm_4, [-1, 768])
        del layer_norm_4
        addmm_8 = aten.addmm.default(
            self.transformer.h[2].attn.c_attn.bias, view_24, self.transformer.h[2].attn.c_attn.weight
        )
        del view_24
        view_25 = aten.view.default(addmm_8, [batch, seq, 2304])
        del addmm_8
        # transformer.h.2.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_6, getitem_7, getitem_8 = aten.split.Tensor(view_25, 768, 2)
        del view_25
        view_26 = aten.view.default(getitem_7, [batch, seq, -1, 64])
        del getitem_7
        transpose_8 = aten.transpose.int(view_26, 1, 2)
        del view_26
        view_27 = aten.view.default(getitem_8, [batch, seq, -1, 64])
        del getitem_8
        transpose_9 = aten.transpose.int(view_27, 1, 2)
        del view_27
        view_28 = aten.view.default(getitem_6, [batch, seq, -1, 64])
        del getitem_6
        transpose_10 = aten.transpose.int(view_28, 1, 2)
        del view_28
        scaled_dot_product_attention_2 = aten.scaled_dot_product_attention.default(
            transpose_10, transpose_8, transpose_9, expand, scale=0.125
        )
        del transpose_10, transpose_8, transpose_9
        transpose_11 = aten.transpose.int(scaled_dot_product_attention_2, 1, 2)
        del scaled_dot_product_attention_2
        reshape_2 = aten.reshape.default(transpose_11, [batch, seq, -1])
        del transpose_11
        # transformer.h.2.attn.c_proj (transformers/pytorch_utils.py:119)
        view_29 = aten.view.default(reshape_2, [-1, 768])
        del reshape_2
        addmm_9 = aten.addmm.default(
            self.transformer.h[2].attn.c_proj.bias, view_29, self.transformer.h[2].attn.c_proj.weight
        )
        del view_29
        view_30 = aten.view.default(addmm_9, [batch, seq, 768])
        del addmm_9
        # transformer.h.2 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_13 = aten.add.Tensor(view_30, add_12)
        del view_30, add_12
        # transformer.h.2.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_5 = aten.layer_norm.default(
            add_13, [768], self.transformer.h[2].ln_2.weight, self.transformer.h[2].ln_2.bias, 1e-05, False
        )
        # transformer.h.2.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_31 = aten.view.default(layer_norm_5, [-1, 768])
        del layer_norm_5
        addmm_10 = aten.addmm.default(
            self.transformer.h[2].mlp.c_fc.bias, view_31, self.transformer.h[2].mlp.c_fc.weight
        )
        del view_31
        view_32 = aten.view.default(addmm_10, [batch, seq, 3072])
        del addmm_10
        # transformer.h.2.mlp.act (transformers/activations.py:66)
        mul_24 = aten.mul.Tensor(view_32, 0.5)
        pow_3 = aten.pow.Tensor_Scalar(view_32, 3.0)
        mul_25 = aten.mul.Tensor(pow_3, 0.044715)
        del pow_3
        add_14 = aten.add.Tensor(view_32, mul_25)
        del view_32, mul_25
        mul_26 = aten.mul.Tensor(add_14, 0.7978845608028654)
        del add_14
        tanh_2 = aten.tanh.default(mul_26)
        del mul_26
        add_15 = aten.add.Tensor(tanh_2, 1.0)
        del tanh_2
        mul_27 = aten.mul.Tensor(mul_24, add_15)
        del mul_24, add_15
        # transformer.h.2.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_33 = aten.view.default(mul_27, [-1, 3072])
        del mul_27
        addmm_11 = aten.addmm.default(
            self.transformer.h[2].mlp.c_proj.bias, view_33, self.transformer.h[2].mlp.c_proj.weight
        )
        del view_33
        view_34 = aten.view.default(addmm_11, [batch, seq, 768])
        del addmm_11
        # transformer.h.2 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_16 = aten.add.Tensor(add_13, view_34)
        del add_13, view_34
        # transformer.h.3.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_6 = aten.layer_norm.default(
            add_16, [768], self.transformer.h[3].ln_1.weight, self.transformer.h[3].ln_1.bias, 1e-05, False
        )
        # transformer.h.3.attn.c_attn (transformers/pytorch_utils.py:119)
        view_35 = aten.view.default(layer_norm_6, [-1, 768])
        del layer_norm_6
        addmm_12 = aten.addmm.default(
            self.transformer.h[3].attn.c_attn.bias, view_35, self.transformer.h[3].attn.c_attn.weight
        )
        del view_35
        view_36 = aten.view.default(addmm_12, [batch, seq, 2304])
        del addmm_12
        # transformer.h.3.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_9, getitem_10, getitem_11 = aten.split.Tensor(view_36, 768, 2)
        del view_36
        view_37 = aten.view.default(getitem_10, [batch, seq, -1, 64])
        del getitem_10
        transpose_12 = aten.transpose.int(view_37, 1, 2)
        del view_37
        view_38 = aten.view.default(getitem_11, [batch, seq, -1, 64])
        del getitem_11
        transpose_13 = aten.transpose.int(view_38, 1, 2)
        del view_38
        view_39 = aten.view.default(getitem_9, [batch, seq, -1, 64])
        del getitem_9
        transpose_14 = aten.transpose.int(view_39, 1, 2)
        del view_39
        scaled_dot_product_attention_3 = aten.scaled_dot_product_attention.default(
            transpose_14, transpose_12, transpose_13, expand, scale=0.125
        )
        del transpose_14, transpose_12, transpose_13
        transpose_15 = aten.transpose.int(scaled_dot_product_attention_3, 1, 2)
        del scaled_dot_product_attention_3
        reshape_3 = aten.reshape.default(transpose_15, [batch, seq, -1])
        del transpose_15
        # transformer.h.3.attn.c_proj (transformers/pytorch_utils.py:119)
        view_40 = aten.view.default(reshape_3, [-1, 768])
        del reshape_3
        addmm_13 = aten.addmm.default(
            self.transformer.h[3].attn.c_proj.bias, view_40, self.transformer.h[3].attn.c_proj.weight
        )
        del view_40
        view_41 = aten.view.default(addmm_13, [batch, seq, 768])
        del addmm_13
        # transformer.h.3 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_17 = aten.add.Tensor(view_41, add_16)
        del view_41, add_16
        # transformer.h.3.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_7 = aten.layer_norm.default(
            add_17, [768], self.transformer.h[3].ln_2.weight, self.transformer.h[3].ln_2.bias, 1e-05, False
        )
        # transformer.h.3.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_42 = aten.view.default(layer_norm_7, [-1, 768])
        del layer_norm_7
        addmm_14 = aten.addmm.default(
            self.transformer.h[3].mlp.c_fc.bias, view_42, self.transformer.h[3].mlp.c_fc.weight
        )
        del view_42
        view_43 = aten.view.default(addmm_14, [batch, seq, 3072])
        del addmm_14
        # transformer.h.3.mlp.act (transformers/activations.py:66)
        mul_28 = aten.mul.Tensor(view_43, 0.5)
        pow_4 = aten.pow.Tensor_Scalar(view_43, 3.0)
        mul_29 = aten.mul.Tensor(pow_4, 0.044715)
        del pow_4
        add_18 = aten.add.Tensor(view_43, mul_29)
        del view_43, mul_29
        mul_30 = aten.mul.Tensor(add_18, 0.7978845608028654)
        del add_18
        tanh_3 = aten.tanh.default(mul_30)
        del mul_30
        add_19 = aten.add.Tensor(tanh_3, 1.0)
        del tanh_3
        mul_31 = aten.mul.Tensor(mul_28, add_19)
        del mul_28, add_19
        # transformer.h.3.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_44 = aten.view.default(mul_31, [-1, 3072])
        del mul_31
        addmm_15 = aten.addmm.default(
            self.transformer.h[3].mlp.c_proj.bias, view_44, self.transformer.h[3].mlp.c_proj.weight
        )
        del view_44
        view_45 = aten.view.default(addmm_15, [batch, seq, 768])
        del addmm_15
        # transformer.h.3 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_20 = aten.add.Tensor(add_17, view_45)
        del add_17, view_45
        # transformer.h.4.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_8 = aten.layer_norm.default(
            add_20, [768], self.transformer.h[4].ln_1.weight, self.transformer.h[4].ln_1.bias, 1e-05, False
        )
        # transformer.h.4.attn.c_attn (transformers/pytorch_utils.py:119)
        view_46 = aten.view.default(layer_norm_8, [-1, 768])
        del layer_norm_8
        addmm_16 = aten.addmm.default(
            self.transformer.h[4].attn.c_attn.bias, view_46, self.transformer.h[4].attn.c_attn.weight
        )
        del view_46
        view_47 = aten.view.default(addmm_16, [batch, seq, 2304])
        del addmm_16
        # transformer.h.4.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_12, getitem_13, getitem_14 = aten.split.Tensor(view_47, 768, 2)
        del view_47
        view_48 = aten.view.default(getitem_13, [batch, seq, -1, 64])
        del getitem_13
        transpose_16 = aten.transpose.int(view_48, 1, 2)
        del view_48
        view_49 = aten.view.default(getitem_14, [batch, seq, -1, 64])
        del getitem_14
        transpose_17 = aten.transpose.int(view_49, 1, 2)
        del view_49
        view_50 = aten.view.default(getitem_12, [batch, seq, -1, 64])
        del getitem_12
        transpose_18 = aten.transpose.int(view_50, 1, 2)
        del view_50
        scaled_dot_product_attention_4 = aten.scaled_dot_product_attention.default(
            transpose_18, transpose_16, transpose_17, expand, scale=0.125
        )
        del transpose_18, transpose_16, transpose_17
        transpose_19 = aten.transpose.int(scaled_dot_product_attention_4, 1, 2)
        del scaled_dot_product_attention_4
        reshape_4 = aten.reshape.default(transpose_19, [batch, seq, -1])
        del transpose_19
        # transformer.h.4.attn.c_proj (transformers/pytorch_utils.py:119)
        view_51 = aten.view.default(reshape_4, [-1, 768])
        del reshape_4
        addmm_17 = aten.addmm.default(
            self.transformer.h[4].attn.c_proj.bias, view_51, self.transformer.h[4].attn.c_proj.weight
        )
        del view_51
        view_52 = aten.view.default(addmm_17, [batch, seq, 768])
        del addmm_17
        # transformer.h.4 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_21 = aten.add.Tensor(view_52, add_20)
        del view_52, add_20
        # transformer.h.4.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_9 = aten.layer_norm.default(
            add_21, [768], self.transformer.h[4].ln_2.weight, self.transformer.h[4].ln_2.bias, 1e-05, False
        )
        # transformer.h.4.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_53 = aten.view.default(layer_norm_9, [-1, 768])
        del layer_norm_9
        addmm_18 = aten.addmm.default(
            self.transformer.h[4].mlp.c_fc.bias, view_53, self.transformer.h[4].mlp.c_fc.weight
        )
        del view_53
        view_54 = aten.view.default(addmm_18, [batch, seq, 3072])
        del addmm_18
        # transformer.h.4.mlp.act (transformers/activations.py:66)
        mul_32 = aten.mul.Tensor(view_54, 0.5)
        pow_5 = aten.pow.Tensor_Scalar(view_54, 3.0)
        mul_33 = aten.mul.Tensor(pow_5, 0.044715)
        del pow_5
        add_22 = aten.add.Tensor(view_54, mul_33)
        del view_54, mul_33
        mul_34 = aten.mul.Tensor(add_22, 0.7978845608028654)
        del add_22
        tanh_4 = aten.tanh.default(mul_34)
        del mul_34
        add_23 = aten.add.Tensor(tanh_4, 1.0)
        del tanh_4
        mul_35 = aten.mul.Tensor(mul_32, add_23)
        del mul_32, add_23
        # transformer.h.4.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_55 = aten.view.default(mul_35, [-1, 3072])
        del mul_35
        addmm_19 = aten.addmm.default(
            self.transformer.h[4].mlp.c_proj.bias, view_55, self.transformer.h[4].mlp.c_proj.weight
        )
        del view_55
        view_56 = aten.view.default(addmm_19, [batch, seq, 768])
        del addmm_19
        # transformer.h.4 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_24 = aten.add.Tensor(add_21, view_56)
        del add_21, view_56
        # transformer.h.5.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_10 = aten.layer_norm.default(
            add_24, [768], self.transformer.h[5].ln_1.weight, self.transformer.h[5].ln_1.bias, 1e-05, False
        )
        # transformer.h.5.attn.c_attn (transformers/pytorch_utils.py:119)
        view_57 = aten.view.default(layer_norm_10, [-1, 768])
        del layer_norm_10
        addmm_20 = aten.addmm.default(
            self.transformer.h[5].attn.c_attn.bias, view_57, self.transformer.h[5].attn.c_attn.weight
        )
        del view_57
        view_58 = aten.view.default(addmm_20, [batch, seq, 2304])
        del addmm_20
        # transformer.h.5.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_15, getitem_16, getitem_17 = aten.split.Tensor(view_58, 768, 2)
        del view_58
        view_59 = aten.view.default(getitem_16, [batch, seq, -1, 64])
        del getitem_16
        transpose_20 = aten.transpose.int(view_59, 1, 2)
        del view_59
        view_60 = aten.view.default(getitem_17, [batch, seq, -1, 64])
        del getitem_17
        transpose_21 = aten.transpose.int(view_60, 1, 2)
        del view_60
        view_61 = aten.view.default(getitem_15, [batch, seq, -1, 64])
        del getitem_15
        transpose_22 = aten.transpose.int(view_61, 1, 2)
        del view_61
        scaled_dot_product_attention_5 = aten.scaled_dot_product_attention.default(
            transpose_22, transpose_20, transpose_21, expand, scale=0.125
        )
        del transpose_22, transpose_20, transpose_21
        transpose_23 = aten.transpose.int(scaled_dot_product_attention_5, 1, 2)
        del scaled_dot_product_attention_5
        reshape_5 = aten.reshape.default(transpose_23, [batch, seq, -1])
        del transpose_23
        # transformer.h.5.attn.c_proj (transformers/pytorch_utils.py:119)
        view_62 = aten.view.default(reshape_5, [-1, 768])
        del reshape_5
        addmm_21 = aten.addmm.default(
            self.transformer.h[5].attn.c_proj.bias, view_62, self.transformer.h[5].attn.c_proj.weight
        )
        del view_62
        view_63 = aten.view.default(addmm_21, [batch, seq, 768])
        del addmm_21
        # transformer.h.5 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_25 = aten.add.Tensor(view_63, add_24)
        del view_63, add_24
        # transformer.h.5.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_11 = aten.layer_norm.default(
            add_25, [768], self.transformer.h[5].ln_2.weight, self.transformer.h[5].ln_2.bias, 1e-05, False
        )
        # transformer.h.5.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_64 = aten.view.default(layer_norm_11, [-1, 768])
        del layer_norm_11
        addmm_22 = aten.addmm.default(
            self.transformer.h[5].mlp.c_fc.bias, view_64, self.transformer.h[5].mlp.c_fc.weight
        )
        del view_64
        view_65 = aten.view.default(addmm_22, [batch, seq, 3072])
        del addmm_22
        # transformer.h.5.mlp.act (transformers/activations.py:66)
        mul_36 = aten.mul.Tensor(view_65, 0.5)
        pow_6 = aten.pow.Tensor_Scalar(view_65, 3.0)
        mul_37 = aten.mul.Tensor(pow_6, 0.044715)
        del pow_6
        add_26 = aten.add.Tensor(view_65, mul_37)
        del view_65, mul_37
        mul_38 = aten.mul.Tensor(add_26, 0.7978845608028654)
        del add_26
        tanh_5 = aten.tanh.default(mul_38)
        del mul_38
        add_27 = aten.add.Tensor(tanh_5, 1.0)
        del tanh_5
        mul_39 = aten.mul.Tensor(mul_36, add_27)
        del mul_36, add_27
        # transformer.h.5.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_66 = aten.view.default(mul_39, [-1, 3072])
        del mul_39
        addmm_23 = aten.addmm.default(
            self.transformer.h[5].mlp.c_proj.bias, view_66, self.transformer.h[5].mlp.c_proj.weight
        )
        del view_66
        view_67 = aten.view.default(addmm_23, [batch, seq, 768])
        del addmm_23
        # transformer.h.5 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_28 = aten.add.Tensor(add_25, view_67)
        del add_25, view_67
        # transformer.h.6.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_12 = aten.layer_norm.default(
            add_28, [768], self.transformer.h[6].ln_1.weight, self.transformer.h[6].ln_1.bias, 1e-05, False
        )
        # transformer.h.6.attn.c_attn (transformers/pytorch_utils.py:119)
        view_68 = aten.view.default(layer_norm_12, [-1, 768])
        del layer_norm_12
        addmm_24 = aten.addmm.default(
            self.transformer.h[6].attn.c_attn.bias, view_68, self.transformer.h[6].attn.c_attn.weight
        )
        del view_68
        view_69 = aten.view.default(addmm_24, [batch, seq, 2304])
        del addmm_24
        # transformer.h.6.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_18, getitem_19, getitem_20 = aten.split.Tensor(view_69, 768, 2)
        del view_69
        view_70 = aten.view.default(getitem_19, [batch, seq, -1, 64])
        del getitem_19
        transpose_24 = aten.transpose.int(view_70, 1, 2)
        del view_70
        view_71 = aten.view.default(getitem_20, [batch, seq, -1, 64])
        del getitem_20
        transpose_25 = aten.transpose.int(view_71, 1, 2)
        del view_71
        view_72 = aten.view.default(getitem_18, [batch, seq, -1, 64])
        del getitem_18
        transpose_26 = aten.transpose.int(view_72, 1, 2)
        del view_72
        scaled_dot_product_attention_6 = aten.scaled_dot_product_attention.default(
            transpose_26, transpose_24, transpose_25, expand, scale=0.125
        )
        del transpose_26, transpose_24, transpose_25
        transpose_27 = aten.transpose.int(scaled_dot_product_attention_6, 1, 2)
        del scaled_dot_product_attention_6
        reshape_6 = aten.reshape.default(transpose_27, [batch, seq, -1])
        del transpose_27
        # transformer.h.6.attn.c_proj (transformers/pytorch_utils.py:119)
        view_73 = aten.view.default(reshape_6, [-1, 768])
        del reshape_6
        addmm_25 = aten.addmm.default(
            self.transformer.h[6].attn.c_proj.bias, view_73, self.transformer.h[6].attn.c_proj.weight
        )
        del view_73
        view_74 = aten.view.default(addmm_25, [batch, seq, 768])
        del addmm_25
        # transformer.h.6 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_29 = aten.add.Tensor(view_74, add_28)
        del view_74, add_28
        # transformer.h.6.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_13 = aten.layer_norm.default(
            add_29, [768], self.transformer.h[6].ln_2.weight, self.transformer.h[6].ln_2.bias, 1e-05, False
        )
        # transformer.h.6.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_75 = aten.view.default(layer_norm_13, [-1, 768])
        del layer_norm_13
        addmm_26 = aten.addmm.default(
            self.transformer.h[6].mlp.c_fc.bias, view_75, self.transformer.h[6].mlp.c_fc.weight
        )
        del view_75
        view_76 = aten.view.default(addmm_26, [batch, seq, 3072])
        del addmm_26
        # transformer.h.6.mlp.act (transformers/activations.py:66)
        mul_40 = aten.mul.Tensor(view_76, 0.5)
        pow_7 = aten.pow.Tensor_Scalar(view_76, 3.0)
        mul_41 = aten.mul.Tensor(pow_7, 0.044715)
        del pow_7
        add_30 = aten.add.Tensor(view_76, mul_41)
        del view_76, mul_41
        mul_42 = aten.mul.Tensor(add_30, 0.7978845608028654)
        del add_30
        tanh_6 = aten.tanh.default(mul_42)
        del mul_42
        add_31 = aten.add.Tensor(tanh_6, 1.0)
        del tanh_6
        mul_43 = aten.mul.Tensor(mul_40, add_31)
        del mul_40, add_31
        # transformer.h.6.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_77 = aten.view.default(mul_43, [-1, 3072])
        del mul_43
        addmm_27 = aten.addmm.default(
            self.transformer.h[6].mlp.c_proj.bias, view_77, self.transformer.h[6].mlp.c_proj.weight
        )
        del view_77
        view_78 = aten.view.default(addmm_27, [batch, seq, 768])
        del addmm_27
        # transformer.h.6 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_32 = aten.add.Tensor(add_29, view_78)
        del add_29, view_78
        # transformer.h.7.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_14 = aten.layer_norm.default(
            add_32, [768], self.transformer.h[7].ln_1.weight, self.transformer.h[7].ln_1.bias, 1e-05, False
        )
        # transformer.h.7.attn.c_attn (transformers/pytorch_utils.py:119)
        view_79 = aten.view.default(layer_norm_14, [-1, 768])
        del layer_norm_14
        addmm_28 = aten.addmm.default(
            self.transformer.h[7].attn.c_attn.bias, view_79, self.transformer.h[7].attn.c_attn.weight
        )
        del view_79
        view_80 = aten.view.default(addmm_28, [batch, seq, 2304])
        del addmm_28
        # transformer.h.7.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_21, getitem_22, getitem_23 = aten.split.Tensor(view_80, 768, 2)
        del view_80
        view_81 = aten.view.default(getitem_22, [batch, seq, -1, 64])
        del getitem_22
        transpose_28 = aten.transpose.int(view_81, 1, 2)
        del view_81
        view_82 = aten.view.default(getitem_23, [batch, seq, -1, 64])
        del getitem_23
        transpose_29 = aten.transpose.int(view_82, 1, 2)
        del view_82
        view_83 = aten.view.default(getitem_21, [batch, seq, -1, 64])
        del getitem_21
        transpose_30 = aten.transpose.int(view_83, 1, 2)
        del view_83
        scaled_dot_product_attention_7 = aten.scaled_dot_product_attention.default(
            transpose_30, transpose_28, transpose_29, expand, scale=0.125
        )
        del transpose_30, transpose_28, transpose_29
        transpose_31 = aten.transpose.int(scaled_dot_product_attention_7, 1, 2)
        del scaled_dot_product_attention_7
        reshape_7 = aten.reshape.default(transpose_31, [batch, seq, -1])
        del transpose_31
        # transformer.h.7.attn.c_proj (transformers/pytorch_utils.py:119)
        view_84 = aten.view.default(reshape_7, [-1, 768])
        del reshape_7
        addmm_29 = aten.addmm.default(
            self.transformer.h[7].attn.c_proj.bias, view_84, self.transformer.h[7].attn.c_proj.weight
        )
        del view_84
        view_85 = aten.view.default(addmm_29, [batch, seq, 768])
        del addmm_29
        # transformer.h.7 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_33 = aten.add.Tensor(view_85, add_32)
        del view_85, add_32
        # transformer.h.7.ln_2 (transformers/models/gpt2/modeling_gpt2.py:304)
        layer_norm_15 = aten.layer_norm.default(
            add_33, [768], self.transformer.h[7].ln_2.weight, self.transformer.h[7].ln_2.bias, 1e-05, False
        )
        # transformer.h.7.mlp.c_fc (transformers/pytorch_utils.py:119)
        view_86 = aten.view.default(layer_norm_15, [-1, 768])
        del layer_norm_15
        addmm_30 = aten.addmm.default(
            self.transformer.h[7].mlp.c_fc.bias, view_86, self.transformer.h[7].mlp.c_fc.weight
        )
        del view_86
        view_87 = aten.view.default(addmm_30, [batch, seq, 3072])
        del addmm_30
        # transformer.h.7.mlp.act (transformers/activations.py:66)
        mul_44 = aten.mul.Tensor(view_87, 0.5)
        pow_8 = aten.pow.Tensor_Scalar(view_87, 3.0)
        mul_45 = aten.mul.Tensor(pow_8, 0.044715)
        del pow_8
        add_34 = aten.add.Tensor(view_87, mul_45)
        del view_87, mul_45
        mul_46 = aten.mul.Tensor(add_34, 0.7978845608028654)
        del add_34
        tanh_7 = aten.tanh.default(mul_46)
        del mul_46
        add_35 = aten.add.Tensor(tanh_7, 1.0)
        del tanh_7
        mul_47 = aten.mul.Tensor(mul_44, add_35)
        del mul_44, add_35
        # transformer.h.7.mlp.c_proj (transformers/pytorch_utils.py:119)
        view_88 = aten.view.default(mul_47, [-1, 3072])
        del mul_47
        addmm_31 = aten.addmm.default(
            self.transformer.h[7].mlp.c_proj.bias, view_88, self.transformer.h[7].mlp.c_proj.weight
        )
        del view_88
        view_89 = aten.view.default(addmm_31, [batch, seq, 768])
        del addmm_31
        # transformer.h.7 (transformers/models/gpt2/modeling_gpt2.py:307)
        add_36 = aten.add.Tensor(add_33, view_89)
        del add_33, view_89
        # transformer.h.8.ln_1 (transformers/models/gpt2/modeling_gpt2.py:273)
        layer_norm_16 = aten.layer_norm.default(
            add_36, [768], self.transformer.h[8].ln_1.weight, self.transformer.h[8].ln_1.bias, 1e-05, False
        )
        # transformer.h.8.attn.c_attn (transformers/pytorch_utils.py:119)
        view_90 = aten.view.default(layer_norm_16, [-1, 768])
        del layer_norm_16
        addmm_32 = aten.addmm.default(
            self.transformer.h[8].attn.c_attn.bias, view_90, self.transformer.h[8].attn.c_attn.weight
        )
        del view_90
        view_91 = aten.view.default(addmm_32, [batch, seq, 2304])
        del addmm_32
        # transformer.h.8.attn (transformers/models/gpt2/modeling_gpt2.py:185)
        getitem_24, getitem_25, getitem_26 = aten.split.Tensor(view_91, 768, 2)
        del view_91
        view_92 = aten.view.default(getitem_25, [batch, seq, -1, 64])
        del getitem_25
        transpose_32 = aten.transpose.int(view_92, 1, 2)
        del view_92
        view_93 = aten.view.default(getitem_26, [batch, seq, -1, 64])
        del getitem_26
        transpose_33 = aten.transpose.int(view_93, 1, 2)
        del view_93
        view_94 = aten.view.default(getitem_24, [batch, seq, -1, 64])
        del getitem_24
        transpose_34 = aten.transpose.int(view_94, 1, 2)
        del view_94
        scaled_dot_product_attention_8 = aten.scaled_dot_product_attention.default(
            transpose_34, transpose_32, transpose_33, expand, scale=0.125
        )
        del transpose_34, transpose_32, transpose_33, expand
        transpose_35 = aten.transpose.int(scaled_dot_product_attention_8, 1, 2)
        del scaled_dot_product_attention_8
        reshape_8 = aten.reshape.default(transpose_35, [batch, seq, -1])
        del transpose_35
        # transformer.h.8.attn.c_proj (transformers/pytorch_utils.py:119)
        view_95 = aten.view.default(reshape_8, [-1, 768])
        del reshape_8
        addmm_33 = aten.addmm.default(
            self.transformer.h[8].attn.c_proj.bias, view_95, self.transformer.h[8].attn.c_proj.weight
        )
        del view_95
        view_96 = aten.view.default(addmm_33, [batch, seq, 768])
        del addmm_33
        # transformer.h.8 (transformers/models/gpt2/modeling_gpt2.py:282)
        add_37 = aten.add.Tensor(view_96, add_36)
        del view_96, add_36
        return (add_37,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
