"""t5, stage 2 of 3, for cpu.

takes    attention_mask: int64[batch, source], an input of the model
takes    scaled_dot_product_attention_15: float32[batch, 8, target, 64], from stage 1
takes    add_64: float32[batch, target, 512], from stage 1
takes    mul_43: float32[batch, source, 512], from stage 1
returns  linear_96: float32[batch, target, 32128], to output 0 of the model
holds    20 parameters, 87.8 MiB

Alone:   Stage2.load("stage_2.safetensors", device="cpu")(attention_mask, scaled_dot_product_attention_15, add_64, mul_43)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "attention_mask": (None, torch.int64, ("batch", "source")),
    "scaled_dot_product_attention_15": (1, torch.float32, ("batch", 8, "target", 64)),
    "add_64": (1, torch.float32, ("batch", "target", 512)),
    "mul_43": (1, torch.float32, ("batch", "source", 512)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear_96": ([], [0], torch.float32, ("batch", "target", 32128)),
}

# name: (dtype, shape)
PARAMETERS = {
    "lm_head.weight": (torch.float32, (32128, 512)),
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (torch.float32, (32, 8)),
    "decoder.block.4.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.4.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.4.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.5.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.5.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.5.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.5.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.5.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.5.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.final_layer_norm.weight": (torch.float32, (512,)),
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


class Stage2(Block):
    def __init__(self):
        super().__init__()
        for name, (dtype, shape) in PARAMETERS.items():
            place(self, name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=dtype.is_floating_point))

    def forward(self, attention_mask, scaled_dot_product_attention_15, add_64, mul_43):
        batch = attention_mask.shape[0]
        source = attention_mask.shape[1]
        target = scaled_dot_product_attention_15.shape[2]
        device = attention_mask.device
        # decoder (transformers/models/t5/modeling_t5.py:698)
        arange_8 = aten.arange.default(target, device=device)
        add_31 = aten.add.Tensor(arange_8, 0)
        del arange_8
        arange_9 = aten.arange.default(target, device=device)
        add_32 = aten.add.Tensor(arange_9, 0)
        del arange_9
        unsqueeze_21 = aten.unsqueeze.default(add_31, 0)
        del add_31
        unsqueeze_22 = aten.unsqueeze.default(unsqueeze_21, 1)
        del unsqueeze_21
        unsqueeze_23 = aten.unsqueeze.default(unsqueeze_22, 3)
        del unsqueeze_22
        unsqueeze_24 = aten.unsqueeze.default(add_32, 0)
        del add_32
        unsqueeze_25 = aten.unsqueeze.default(unsqueeze_24, 1)
        del unsqueeze_24
        unsqueeze_26 = aten.unsqueeze.default(unsqueeze_25, 2)
        del unsqueeze_25
        le_8 = aten.le.Tensor(unsqueeze_26, unsqueeze_23)
        del unsqueeze_26, unsqueeze_23
        expand_1 = aten.expand.default(le_8, [batch, -1, target, target])
        del le_8
        to_19 = aten.to.device(attention_mask, device, torch.bool)
        del attention_mask
        arange_10 = aten.arange.default(batch, device=device)
        arange_12 = aten.arange.default(target, device=device)
        add_34 = aten.add.Tensor(arange_12, 0)
        del arange_12
        arange_13 = aten.arange.default(source, device=device)
        add_35 = aten.add.Tensor(arange_13, 0)
        del arange_13
        unsqueeze_27 = aten.unsqueeze.default(arange_10, 1)
        del arange_10
        unsqueeze_28 = aten.unsqueeze.default(unsqueeze_27, 2)
        del unsqueeze_27
        unsqueeze_29 = aten.unsqueeze.default(unsqueeze_28, 3)
        del unsqueeze_28
        unsqueeze_33 = aten.unsqueeze.default(add_34, 0)
        del add_34
        unsqueeze_34 = aten.unsqueeze.default(unsqueeze_33, 1)
        del unsqueeze_33
        unsqueeze_35 = aten.unsqueeze.default(unsqueeze_34, 3)
        del unsqueeze_34
        unsqueeze_36 = aten.unsqueeze.default(add_35, 0)
        del add_35
        unsqueeze_37 = aten.unsqueeze.default(unsqueeze_36, 1)
        del unsqueeze_36
        unsqueeze_38 = aten.unsqueeze.default(unsqueeze_37, 2)
        del unsqueeze_37
        new_ones_1 = aten.new_ones.default(unsqueeze_35, [], dtype=torch.bool)
        ge_1 = aten.ge.Scalar(unsqueeze_35, 0)
        del unsqueeze_35
        and_3 = aten.__and__.Tensor(new_ones_1, ge_1)
        del new_ones_1, ge_1
        index_1 = aten.index.Tensor(to_19, [unsqueeze_29, unsqueeze_38])
        del to_19, unsqueeze_29, unsqueeze_38
        and_4 = aten.__and__.Tensor(and_3, index_1)
        del and_3, index_1
        expand_2 = aten.expand.default(and_4, [batch, -1, target, source])
        del and_4
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
        arange_14 = aten.arange.default(target, dtype=torch.int64, device=device)
        unsqueeze_39 = aten.unsqueeze.default(arange_14, 1)
        del arange_14
        add_37 = aten.add.Tensor(unsqueeze_39, 0)
        del unsqueeze_39
        arange_15 = aten.arange.default(target, dtype=torch.int64, device=device)
        unsqueeze_40 = aten.unsqueeze.default(arange_15, 0)
        del arange_15
        sub_3 = aten.sub.Tensor(unsqueeze_40, add_37)
        del unsqueeze_40, add_37
        zeros_like = aten.zeros_like.default(sub_3)
        min_2 = aten.min.other(sub_3, zeros_like)
        del sub_3, zeros_like
        neg = aten.neg.default(min_2)
        del min_2
        lt_1 = aten.lt.Scalar(neg, 16)
        to_23 = aten.to.dtype(neg, torch.float32)
        div_2 = aten.div.Tensor(to_23, 16)
        del to_23
        log_1 = aten.log.default(div_2)
        del div_2
        div_3 = aten.div.Tensor(log_1, 2.0794415416798357)
        del log_1
        mul_46 = aten.mul.Tensor(div_3, 16)
        del div_3
        to_24 = aten.to.dtype(mul_46, torch.int64)
        del mul_46
        add_38 = aten.add.Tensor(to_24, 16)
        del to_24
        full_like_1 = aten.full_like.default(add_38, 31)
        min_3 = aten.min.other(add_38, full_like_1)
        del add_38, full_like_1
        where_7 = aten.where.self(lt_1, neg, min_3)
        del lt_1, neg, min_3
        add_39 = aten.add.Tensor(where_7, 0)
        del where_7
        # decoder.block.0.layer.0.SelfAttention.relative_attention_bias (transformers/models/t5/modeling_t5.py:346)
        embedding_3 = aten.embedding.default(
            self.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, add_39
        )
        del add_39
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
        permute_1 = aten.permute.default(embedding_3, [2, 0, 1])
        del embedding_3
        unsqueeze_41 = aten.unsqueeze.default(permute_1, 0)
        del permute_1
        # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:338)
        zeros = aten.zeros.default([1, 8, target, source], dtype=torch.float32, device=device)
        # decoder.block.4.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:354)
        transpose_63 = aten.transpose.int(scaled_dot_product_attention_15, 1, 2)
        del scaled_dot_product_attention_15
        reshape_15 = aten.reshape.default(transpose_63, [batch, target, -1])
        del transpose_63
        # decoder.block.4.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_83 = aten.linear.default(reshape_15, self.decoder.block[4].layer[1].EncDecAttention.o.weight)
        del reshape_15
        # decoder.block.4.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_66 = aten.add.Tensor(add_64, linear_83)
        del add_64, linear_83
        # decoder.block.4.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_28 = aten.pow.Tensor_Scalar(add_66, 2)
        mean_27 = aten.mean.dim(pow_28, [-1], True)
        del pow_28
        add_67 = aten.add.Tensor(mean_27, 1e-06)
        del mean_27
        rsqrt_27 = aten.rsqrt.default(add_67)
        del add_67
        mul_89 = aten.mul.Tensor(add_66, rsqrt_27)
        del rsqrt_27
        mul_90 = aten.mul.Tensor(self.decoder.block[4].layer[2].layer_norm.weight, mul_89)
        del mul_89
        # decoder.block.4.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_84 = aten.linear.default(mul_90, self.decoder.block[4].layer[2].DenseReluDense.wi.weight)
        del mul_90
        # decoder.block.4.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_10 = aten.relu.default(linear_84)
        del linear_84
        # decoder.block.4.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_85 = aten.linear.default(relu_10, self.decoder.block[4].layer[2].DenseReluDense.wo.weight)
        del relu_10
        # decoder.block.4.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_68 = aten.add.Tensor(add_66, linear_85)
        del add_66, linear_85
        # decoder.block.5.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_29 = aten.pow.Tensor_Scalar(add_68, 2)
        mean_28 = aten.mean.dim(pow_29, [-1], True)
        del pow_29
        add_69 = aten.add.Tensor(mean_28, 1e-06)
        del mean_28
        rsqrt_28 = aten.rsqrt.default(add_69)
        del add_69
        mul_91 = aten.mul.Tensor(add_68, rsqrt_28)
        del rsqrt_28
        mul_92 = aten.mul.Tensor(self.decoder.block[5].layer[0].layer_norm.weight, mul_91)
        del mul_91
        # decoder.block.5.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_86 = aten.linear.default(mul_92, self.decoder.block[5].layer[0].SelfAttention.q.weight)
        # decoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_48 = aten.view.default(linear_86, [batch, target, -1, 64])
        del linear_86
        transpose_64 = aten.transpose.int(view_48, 1, 2)
        del view_48
        # decoder.block.5.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_87 = aten.linear.default(mul_92, self.decoder.block[5].layer[0].SelfAttention.k.weight)
        # decoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_49 = aten.view.default(linear_87, [batch, target, -1, 64])
        del linear_87
        transpose_65 = aten.transpose.int(view_49, 1, 2)
        del view_49
        # decoder.block.5.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_88 = aten.linear.default(mul_92, self.decoder.block[5].layer[0].SelfAttention.v.weight)
        del mul_92
        # decoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_50 = aten.view.default(linear_88, [batch, target, -1, 64])
        del linear_88
        transpose_66 = aten.transpose.int(view_50, 1, 2)
        del view_50
        where_18 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        del expand_1, unsqueeze_41
        scaled_dot_product_attention_16 = aten.scaled_dot_product_attention.default(
            transpose_64, transpose_65, transpose_66, where_18, scale=1.0
        )
        del transpose_64, transpose_65, transpose_66, where_18
        transpose_67 = aten.transpose.int(scaled_dot_product_attention_16, 1, 2)
        del scaled_dot_product_attention_16
        reshape_16 = aten.reshape.default(transpose_67, [batch, target, -1])
        del transpose_67
        # decoder.block.5.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_89 = aten.linear.default(reshape_16, self.decoder.block[5].layer[0].SelfAttention.o.weight)
        del reshape_16
        # decoder.block.5.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_70 = aten.add.Tensor(add_68, linear_89)
        del add_68, linear_89
        # decoder.block.5.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_30 = aten.pow.Tensor_Scalar(add_70, 2)
        mean_29 = aten.mean.dim(pow_30, [-1], True)
        del pow_30
        add_71 = aten.add.Tensor(mean_29, 1e-06)
        del mean_29
        rsqrt_29 = aten.rsqrt.default(add_71)
        del add_71
        mul_93 = aten.mul.Tensor(add_70, rsqrt_29)
        del rsqrt_29
        mul_94 = aten.mul.Tensor(self.decoder.block[5].layer[1].layer_norm.weight, mul_93)
        del mul_93
        # decoder.block.5.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_90 = aten.linear.default(mul_94, self.decoder.block[5].layer[1].EncDecAttention.q.weight)
        del mul_94
        # decoder.block.5.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_51 = aten.view.default(linear_90, [batch, target, -1, 64])
        del linear_90
        transpose_68 = aten.transpose.int(view_51, 1, 2)
        del view_51
        # decoder.block.5.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_91 = aten.linear.default(mul_43, self.decoder.block[5].layer[1].EncDecAttention.k.weight)
        # decoder.block.5.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_52 = aten.view.default(linear_91, [batch, source, -1, 64])
        del linear_91
        transpose_69 = aten.transpose.int(view_52, 1, 2)
        del view_52
        # decoder.block.5.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_92 = aten.linear.default(mul_43, self.decoder.block[5].layer[1].EncDecAttention.v.weight)
        del mul_43
        # decoder.block.5.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_53 = aten.view.default(linear_92, [batch, source, -1, 64])
        del linear_92
        transpose_70 = aten.transpose.int(view_53, 1, 2)
        del view_53
        where_19 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        del expand_2, zeros
        scaled_dot_product_attention_17 = aten.scaled_dot_product_attention.default(
            transpose_68, transpose_69, transpose_70, where_19, scale=1.0
        )
        del transpose_68, transpose_69, transpose_70, where_19
        transpose_71 = aten.transpose.int(scaled_dot_product_attention_17, 1, 2)
        del scaled_dot_product_attention_17
        reshape_17 = aten.reshape.default(transpose_71, [batch, target, -1])
        del transpose_71
        # decoder.block.5.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_93 = aten.linear.default(reshape_17, self.decoder.block[5].layer[1].EncDecAttention.o.weight)
        del reshape_17
        # decoder.block.5.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_72 = aten.add.Tensor(add_70, linear_93)
        del add_70, linear_93
        # decoder.block.5.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_31 = aten.pow.Tensor_Scalar(add_72, 2)
        mean_30 = aten.mean.dim(pow_31, [-1], True)
        del pow_31
        add_73 = aten.add.Tensor(mean_30, 1e-06)
        del mean_30
        rsqrt_30 = aten.rsqrt.default(add_73)
        del add_73
        mul_95 = aten.mul.Tensor(add_72, rsqrt_30)
        del rsqrt_30
        mul_96 = aten.mul.Tensor(self.decoder.block[5].layer[2].layer_norm.weight, mul_95)
        del mul_95
        # decoder.block.5.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_94 = aten.linear.default(mul_96, self.decoder.block[5].layer[2].DenseReluDense.wi.weight)
        del mul_96
        # decoder.block.5.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_11 = aten.relu.default(linear_94)
        del linear_94
        # decoder.block.5.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_95 = aten.linear.default(relu_11, self.decoder.block[5].layer[2].DenseReluDense.wo.weight)
        del relu_11
        # decoder.block.5.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_74 = aten.add.Tensor(add_72, linear_95)
        del add_72, linear_95
        # decoder.final_layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_32 = aten.pow.Tensor_Scalar(add_74, 2)
        mean_31 = aten.mean.dim(pow_32, [-1], True)
        del pow_32
        add_75 = aten.add.Tensor(mean_31, 1e-06)
        del mean_31
        rsqrt_31 = aten.rsqrt.default(add_75)
        del add_75
        mul_97 = aten.mul.Tensor(add_74, rsqrt_31)
        del add_74, rsqrt_31
        mul_98 = aten.mul.Tensor(self.decoder.final_layer_norm.weight, mul_97)
        del mul_97
        # the model itself (transformers/models/t5/modeling_t5.py:1045)
        mul_99 = aten.mul.Tensor(mul_98, 0.04419417382415922)
        del mul_98
        # lm_head (transformers/models/t5/modeling_t5.py:1047)
        linear_96 = aten.linear.default(mul_99, self.lm_head.weight)
        del mul_99
        return (linear_96,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
