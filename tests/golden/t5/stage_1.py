"""t5, stage 1 of 3, for cpu.

takes    attention_mask: int64[batch, source], an input of the model
takes    decoder_input_ids: int64[batch, target], an input of the model
takes    add_27: float32[batch, source, 512], from stage 0
returns  scaled_dot_product_attention_15: float32[batch, 8, target, 64], to stage 2
returns  add_64: float32[batch, target, 512], to stage 2
returns  mul_43: float32[batch, source, 512], to stage 2 and output 1 of the model
holds    67 parameters, 141.8 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(attention_mask, decoder_input_ids, add_27)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "attention_mask": (None, torch.int64, ("batch", "source")),
    "decoder_input_ids": (None, torch.int64, ("batch", "target")),
    "add_27": (0, torch.float32, ("batch", "source", 512)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "scaled_dot_product_attention_15": ([2], [], torch.float32, ("batch", 8, "target", 64)),
    "add_64": ([2], [], torch.float32, ("batch", "target", 512)),
    "mul_43": ([2], [1], torch.float32, ("batch", "source", 512)),
}

# name: (dtype, shape)
PARAMETERS = {
    "decoder.embed_tokens.weight": (torch.float32, (32128, 512)),
    "encoder.block.5.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.5.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.5.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.final_layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.0.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (torch.float32, (32, 8)),
    "decoder.block.0.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.0.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.0.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.0.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.0.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.0.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.1.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.1.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.1.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.1.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.1.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.1.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.2.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.2.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.2.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.2.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.2.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.2.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.3.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.3.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.1.EncDecAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.3.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.3.layer.2.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "decoder.block.3.layer.2.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "decoder.block.3.layer.2.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.4.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "decoder.block.4.layer.1.EncDecAttention.q.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.1.EncDecAttention.k.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.1.EncDecAttention.v.weight": (torch.float32, (512, 512)),
    "decoder.block.4.layer.1.layer_norm.weight": (torch.float32, (512,)),
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

    def forward(self, attention_mask, decoder_input_ids, add_27):
        batch = attention_mask.shape[0]
        source = attention_mask.shape[1]
        target = decoder_input_ids.shape[1]
        device = attention_mask.device
        # encoder.block.5.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_12 = aten.pow.Tensor_Scalar(add_27, 2)
        mean_11 = aten.mean.dim(pow_12, [-1], True)
        del pow_12
        add_28 = aten.add.Tensor(mean_11, 1e-06)
        del mean_11
        rsqrt_11 = aten.rsqrt.default(add_28)
        del add_28
        mul_40 = aten.mul.Tensor(add_27, rsqrt_11)
        del rsqrt_11
        mul_41 = aten.mul.Tensor(self.encoder.block[5].layer[1].layer_norm.weight, mul_40)
        del mul_40
        # encoder.block.5.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_34 = aten.linear.default(mul_41, self.encoder.block[5].layer[1].DenseReluDense.wi.weight)
        del mul_41
        # encoder.block.5.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_5 = aten.relu.default(linear_34)
        del linear_34
        # encoder.block.5.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_35 = aten.linear.default(relu_5, self.encoder.block[5].layer[1].DenseReluDense.wo.weight)
        del relu_5
        # encoder.block.5.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_29 = aten.add.Tensor(add_27, linear_35)
        del add_27, linear_35
        # encoder.final_layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_13 = aten.pow.Tensor_Scalar(add_29, 2)
        mean_12 = aten.mean.dim(pow_13, [-1], True)
        del pow_13
        add_30 = aten.add.Tensor(mean_12, 1e-06)
        del mean_12
        rsqrt_12 = aten.rsqrt.default(add_30)
        del add_30
        mul_42 = aten.mul.Tensor(add_29, rsqrt_12)
        del add_29, rsqrt_12
        mul_43 = aten.mul.Tensor(self.encoder.final_layer_norm.weight, mul_42)
        del mul_42
        # decoder.embed_tokens (transformers/models/t5/modeling_t5.py:678)
        embedding_2 = aten.embedding.default(self.decoder.embed_tokens.weight, decoder_input_ids)
        del decoder_input_ids
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
        # decoder.block.0.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_14 = aten.pow.Tensor_Scalar(embedding_2, 2)
        mean_13 = aten.mean.dim(pow_14, [-1], True)
        del pow_14
        add_36 = aten.add.Tensor(mean_13, 1e-06)
        del mean_13
        rsqrt_13 = aten.rsqrt.default(add_36)
        del add_36
        mul_44 = aten.mul.Tensor(embedding_2, rsqrt_13)
        del rsqrt_13
        mul_45 = aten.mul.Tensor(self.decoder.block[0].layer[0].layer_norm.weight, mul_44)
        del mul_44
        # decoder.block.0.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_36 = aten.linear.default(mul_45, self.decoder.block[0].layer[0].SelfAttention.q.weight)
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_18 = aten.view.default(linear_36, [batch, target, -1, 64])
        del linear_36
        transpose_24 = aten.transpose.int(view_18, 1, 2)
        del view_18
        # decoder.block.0.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_37 = aten.linear.default(mul_45, self.decoder.block[0].layer[0].SelfAttention.k.weight)
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_19 = aten.view.default(linear_37, [batch, target, -1, 64])
        del linear_37
        transpose_25 = aten.transpose.int(view_19, 1, 2)
        del view_19
        # decoder.block.0.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_38 = aten.linear.default(mul_45, self.decoder.block[0].layer[0].SelfAttention.v.weight)
        del mul_45
        # decoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_20 = aten.view.default(linear_38, [batch, target, -1, 64])
        del linear_38
        transpose_26 = aten.transpose.int(view_20, 1, 2)
        del view_20
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
        where_8 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        scaled_dot_product_attention_6 = aten.scaled_dot_product_attention.default(
            transpose_24, transpose_25, transpose_26, where_8, scale=1.0
        )
        del transpose_24, transpose_25, transpose_26, where_8
        transpose_27 = aten.transpose.int(scaled_dot_product_attention_6, 1, 2)
        del scaled_dot_product_attention_6
        reshape_6 = aten.reshape.default(transpose_27, [batch, target, -1])
        del transpose_27
        # decoder.block.0.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_39 = aten.linear.default(reshape_6, self.decoder.block[0].layer[0].SelfAttention.o.weight)
        del reshape_6
        # decoder.block.0.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_40 = aten.add.Tensor(embedding_2, linear_39)
        del embedding_2, linear_39
        # decoder.block.0.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_15 = aten.pow.Tensor_Scalar(add_40, 2)
        mean_14 = aten.mean.dim(pow_15, [-1], True)
        del pow_15
        add_41 = aten.add.Tensor(mean_14, 1e-06)
        del mean_14
        rsqrt_14 = aten.rsqrt.default(add_41)
        del add_41
        mul_55 = aten.mul.Tensor(add_40, rsqrt_14)
        del rsqrt_14
        mul_56 = aten.mul.Tensor(self.decoder.block[0].layer[1].layer_norm.weight, mul_55)
        del mul_55
        # decoder.block.0.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_40 = aten.linear.default(mul_56, self.decoder.block[0].layer[1].EncDecAttention.q.weight)
        del mul_56
        # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_21 = aten.view.default(linear_40, [batch, target, -1, 64])
        del linear_40
        transpose_28 = aten.transpose.int(view_21, 1, 2)
        del view_21
        # decoder.block.0.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_41 = aten.linear.default(mul_43, self.decoder.block[0].layer[1].EncDecAttention.k.weight)
        # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_22 = aten.view.default(linear_41, [batch, source, -1, 64])
        del linear_41
        transpose_29 = aten.transpose.int(view_22, 1, 2)
        del view_22
        # decoder.block.0.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_42 = aten.linear.default(mul_43, self.decoder.block[0].layer[1].EncDecAttention.v.weight)
        # decoder.block.0.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_23 = aten.view.default(linear_42, [batch, source, -1, 64])
        del linear_42
        transpose_30 = aten.transpose.int(view_23, 1, 2)
        del view_23
        zeros = aten.zeros.default([1, 8, target, source], dtype=torch.float32, device=device)
        where_9 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        scaled_dot_product_attention_7 = aten.scaled_dot_product_attention.default(
            transpose_28, transpose_29, transpose_30, where_9, scale=1.0
        )
        del transpose_28, transpose_29, transpose_30, where_9
        transpose_31 = aten.transpose.int(scaled_dot_product_attention_7, 1, 2)
        del scaled_dot_product_attention_7
        reshape_7 = aten.reshape.default(transpose_31, [batch, target, -1])
        del transpose_31
        # decoder.block.0.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_43 = aten.linear.default(reshape_7, self.decoder.block[0].layer[1].EncDecAttention.o.weight)
        del reshape_7
        # decoder.block.0.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_42 = aten.add.Tensor(add_40, linear_43)
        del add_40, linear_43
        # decoder.block.0.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_16 = aten.pow.Tensor_Scalar(add_42, 2)
        mean_15 = aten.mean.dim(pow_16, [-1], True)
        del pow_16
        add_43 = aten.add.Tensor(mean_15, 1e-06)
        del mean_15
        rsqrt_15 = aten.rsqrt.default(add_43)
        del add_43
        mul_57 = aten.mul.Tensor(add_42, rsqrt_15)
        del rsqrt_15
        mul_58 = aten.mul.Tensor(self.decoder.block[0].layer[2].layer_norm.weight, mul_57)
        del mul_57
        # decoder.block.0.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_44 = aten.linear.default(mul_58, self.decoder.block[0].layer[2].DenseReluDense.wi.weight)
        del mul_58
        # decoder.block.0.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_6 = aten.relu.default(linear_44)
        del linear_44
        # decoder.block.0.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_45 = aten.linear.default(relu_6, self.decoder.block[0].layer[2].DenseReluDense.wo.weight)
        del relu_6
        # decoder.block.0.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_44 = aten.add.Tensor(add_42, linear_45)
        del add_42, linear_45
        # decoder.block.1.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_17 = aten.pow.Tensor_Scalar(add_44, 2)
        mean_16 = aten.mean.dim(pow_17, [-1], True)
        del pow_17
        add_45 = aten.add.Tensor(mean_16, 1e-06)
        del mean_16
        rsqrt_16 = aten.rsqrt.default(add_45)
        del add_45
        mul_59 = aten.mul.Tensor(add_44, rsqrt_16)
        del rsqrt_16
        mul_60 = aten.mul.Tensor(self.decoder.block[1].layer[0].layer_norm.weight, mul_59)
        del mul_59
        # decoder.block.1.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_46 = aten.linear.default(mul_60, self.decoder.block[1].layer[0].SelfAttention.q.weight)
        # decoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_24 = aten.view.default(linear_46, [batch, target, -1, 64])
        del linear_46
        transpose_32 = aten.transpose.int(view_24, 1, 2)
        del view_24
        # decoder.block.1.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_47 = aten.linear.default(mul_60, self.decoder.block[1].layer[0].SelfAttention.k.weight)
        # decoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_25 = aten.view.default(linear_47, [batch, target, -1, 64])
        del linear_47
        transpose_33 = aten.transpose.int(view_25, 1, 2)
        del view_25
        # decoder.block.1.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_48 = aten.linear.default(mul_60, self.decoder.block[1].layer[0].SelfAttention.v.weight)
        del mul_60
        # decoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_26 = aten.view.default(linear_48, [batch, target, -1, 64])
        del linear_48
        transpose_34 = aten.transpose.int(view_26, 1, 2)
        del view_26
        where_10 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        scaled_dot_product_attention_8 = aten.scaled_dot_product_attention.default(
            transpose_32, transpose_33, transpose_34, where_10, scale=1.0
        )
        del transpose_32, transpose_33, transpose_34, where_10
        transpose_35 = aten.transpose.int(scaled_dot_product_attention_8, 1, 2)
        del scaled_dot_product_attention_8
        reshape_8 = aten.reshape.default(transpose_35, [batch, target, -1])
        del transpose_35
        # decoder.block.1.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_49 = aten.linear.default(reshape_8, self.decoder.block[1].layer[0].SelfAttention.o.weight)
        del reshape_8
        # decoder.block.1.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_46 = aten.add.Tensor(add_44, linear_49)
        del add_44, linear_49
        # decoder.block.1.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_18 = aten.pow.Tensor_Scalar(add_46, 2)
        mean_17 = aten.mean.dim(pow_18, [-1], True)
        del pow_18
        add_47 = aten.add.Tensor(mean_17, 1e-06)
        del mean_17
        rsqrt_17 = aten.rsqrt.default(add_47)
        del add_47
        mul_61 = aten.mul.Tensor(add_46, rsqrt_17)
        del rsqrt_17
        mul_62 = aten.mul.Tensor(self.decoder.block[1].layer[1].layer_norm.weight, mul_61)
        del mul_61
        # decoder.block.1.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_50 = aten.linear.default(mul_62, self.decoder.block[1].layer[1].EncDecAttention.q.weight)
        del mul_62
        # decoder.block.1.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_27 = aten.view.default(linear_50, [batch, target, -1, 64])
        del linear_50
        transpose_36 = aten.transpose.int(view_27, 1, 2)
        del view_27
        # decoder.block.1.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_51 = aten.linear.default(mul_43, self.decoder.block[1].layer[1].EncDecAttention.k.weight)
        # decoder.block.1.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_28 = aten.view.default(linear_51, [batch, source, -1, 64])
        del linear_51
        transpose_37 = aten.transpose.int(view_28, 1, 2)
        del view_28
        # decoder.block.1.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_52 = aten.linear.default(mul_43, self.decoder.block[1].layer[1].EncDecAttention.v.weight)
        # decoder.block.1.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_29 = aten.view.default(linear_52, [batch, source, -1, 64])
        del linear_52
        transpose_38 = aten.transpose.int(view_29, 1, 2)
        del view_29
        where_11 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        scaled_dot_product_attention_9 = aten.scaled_dot_product_attention.default(
            transpose_36, transpose_37, transpose_38, where_11, scale=1.0
        )
        del transpose_36, transpose_37, transpose_38, where_11
        transpose_39 = aten.transpose.int(scaled_dot_product_attention_9, 1, 2)
        del scaled_dot_product_attention_9
        reshape_9 = aten.reshape.default(transpose_39, [batch, target, -1])
        del transpose_39
        # decoder.block.1.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_53 = aten.linear.default(reshape_9, self.decoder.block[1].layer[1].EncDecAttention.o.weight)
        del reshape_9
        # decoder.block.1.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_48 = aten.add.Tensor(add_46, linear_53)
        del add_46, linear_53
        # decoder.block.1.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_19 = aten.pow.Tensor_Scalar(add_48, 2)
        mean_18 = aten.mean.dim(pow_19, [-1], True)
        del pow_19
        add_49 = aten.add.Tensor(mean_18, 1e-06)
        del mean_18
        rsqrt_18 = aten.rsqrt.default(add_49)
        del add_49
        mul_63 = aten.mul.Tensor(add_48, rsqrt_18)
        del rsqrt_18
        mul_64 = aten.mul.Tensor(self.decoder.block[1].layer[2].layer_norm.weight, mul_63)
        del mul_63
        # decoder.block.1.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_54 = aten.linear.default(mul_64, self.decoder.block[1].layer[2].DenseReluDense.wi.weight)
        del mul_64
        # decoder.block.1.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_7 = aten.relu.default(linear_54)
        del linear_54
        # decoder.block.1.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_55 = aten.linear.default(relu_7, self.decoder.block[1].layer[2].DenseReluDense.wo.weight)
        del relu_7
        # decoder.block.1.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_50 = aten.add.Tensor(add_48, linear_55)
        del add_48, linear_55
        # decoder.block.2.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_20 = aten.pow.Tensor_Scalar(add_50, 2)
        mean_19 = aten.mean.dim(pow_20, [-1], True)
        del pow_20
        add_51 = aten.add.Tensor(mean_19, 1e-06)
        del mean_19
        rsqrt_19 = aten.rsqrt.default(add_51)
        del add_51
        mul_65 = aten.mul.Tensor(add_50, rsqrt_19)
        del rsqrt_19
        mul_66 = aten.mul.Tensor(self.decoder.block[2].layer[0].layer_norm.weight, mul_65)
        del mul_65
        # decoder.block.2.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_56 = aten.linear.default(mul_66, self.decoder.block[2].layer[0].SelfAttention.q.weight)
        # decoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_30 = aten.view.default(linear_56, [batch, target, -1, 64])
        del linear_56
        transpose_40 = aten.transpose.int(view_30, 1, 2)
        del view_30
        # decoder.block.2.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_57 = aten.linear.default(mul_66, self.decoder.block[2].layer[0].SelfAttention.k.weight)
        # decoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_31 = aten.view.default(linear_57, [batch, target, -1, 64])
        del linear_57
        transpose_41 = aten.transpose.int(view_31, 1, 2)
        del view_31
        # decoder.block.2.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_58 = aten.linear.default(mul_66, self.decoder.block[2].layer[0].SelfAttention.v.weight)
        del mul_66
        # decoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_32 = aten.view.default(linear_58, [batch, target, -1, 64])
        del linear_58
        transpose_42 = aten.transpose.int(view_32, 1, 2)
        del view_32
        where_12 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        scaled_dot_product_attention_10 = aten.scaled_dot_product_attention.default(
            transpose_40, transpose_41, transpose_42, where_12, scale=1.0
        )
        del transpose_40, transpose_41, transpose_42, where_12
        transpose_43 = aten.transpose.int(scaled_dot_product_attention_10, 1, 2)
        del scaled_dot_product_attention_10
        reshape_10 = aten.reshape.default(transpose_43, [batch, target, -1])
        del transpose_43
        # decoder.block.2.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_59 = aten.linear.default(reshape_10, self.decoder.block[2].layer[0].SelfAttention.o.weight)
        del reshape_10
        # decoder.block.2.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_52 = aten.add.Tensor(add_50, linear_59)
        del add_50, linear_59
        # decoder.block.2.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_21 = aten.pow.Tensor_Scalar(add_52, 2)
        mean_20 = aten.mean.dim(pow_21, [-1], True)
        del pow_21
        add_53 = aten.add.Tensor(mean_20, 1e-06)
        del mean_20
        rsqrt_20 = aten.rsqrt.default(add_53)
        del add_53
        mul_75 = aten.mul.Tensor(add_52, rsqrt_20)
        del rsqrt_20
        mul_76 = aten.mul.Tensor(self.decoder.block[2].layer[1].layer_norm.weight, mul_75)
        del mul_75
        # decoder.block.2.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_60 = aten.linear.default(mul_76, self.decoder.block[2].layer[1].EncDecAttention.q.weight)
        del mul_76
        # decoder.block.2.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_33 = aten.view.default(linear_60, [batch, target, -1, 64])
        del linear_60
        transpose_44 = aten.transpose.int(view_33, 1, 2)
        del view_33
        # decoder.block.2.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_61 = aten.linear.default(mul_43, self.decoder.block[2].layer[1].EncDecAttention.k.weight)
        # decoder.block.2.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_34 = aten.view.default(linear_61, [batch, source, -1, 64])
        del linear_61
        transpose_45 = aten.transpose.int(view_34, 1, 2)
        del view_34
        # decoder.block.2.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_62 = aten.linear.default(mul_43, self.decoder.block[2].layer[1].EncDecAttention.v.weight)
        # decoder.block.2.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_35 = aten.view.default(linear_62, [batch, source, -1, 64])
        del linear_62
        transpose_46 = aten.transpose.int(view_35, 1, 2)
        del view_35
        where_13 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        scaled_dot_product_attention_11 = aten.scaled_dot_product_attention.default(
            transpose_44, transpose_45, transpose_46, where_13, scale=1.0
        )
        del transpose_44, transpose_45, transpose_46, where_13
        transpose_47 = aten.transpose.int(scaled_dot_product_attention_11, 1, 2)
        del scaled_dot_product_attention_11
        reshape_11 = aten.reshape.default(transpose_47, [batch, target, -1])
        del transpose_47
        # decoder.block.2.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_63 = aten.linear.default(reshape_11, self.decoder.block[2].layer[1].EncDecAttention.o.weight)
        del reshape_11
        # decoder.block.2.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_54 = aten.add.Tensor(add_52, linear_63)
        del add_52, linear_63
        # decoder.block.2.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_22 = aten.pow.Tensor_Scalar(add_54, 2)
        mean_21 = aten.mean.dim(pow_22, [-1], True)
        del pow_22
        add_55 = aten.add.Tensor(mean_21, 1e-06)
        del mean_21
        rsqrt_21 = aten.rsqrt.default(add_55)
        del add_55
        mul_77 = aten.mul.Tensor(add_54, rsqrt_21)
        del rsqrt_21
        mul_78 = aten.mul.Tensor(self.decoder.block[2].layer[2].layer_norm.weight, mul_77)
        del mul_77
        # decoder.block.2.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_64 = aten.linear.default(mul_78, self.decoder.block[2].layer[2].DenseReluDense.wi.weight)
        del mul_78
        # decoder.block.2.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_8 = aten.relu.default(linear_64)
        del linear_64
        # decoder.block.2.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_65 = aten.linear.default(relu_8, self.decoder.block[2].layer[2].DenseReluDense.wo.weight)
        del relu_8
        # decoder.block.2.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_56 = aten.add.Tensor(add_54, linear_65)
        del add_54, linear_65
        # decoder.block.3.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_23 = aten.pow.Tensor_Scalar(add_56, 2)
        mean_22 = aten.mean.dim(pow_23, [-1], True)
        del pow_23
        add_57 = aten.add.Tensor(mean_22, 1e-06)
        del mean_22
        rsqrt_22 = aten.rsqrt.default(add_57)
        del add_57
        mul_79 = aten.mul.Tensor(add_56, rsqrt_22)
        del rsqrt_22
        mul_80 = aten.mul.Tensor(self.decoder.block[3].layer[0].layer_norm.weight, mul_79)
        del mul_79
        # decoder.block.3.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_66 = aten.linear.default(mul_80, self.decoder.block[3].layer[0].SelfAttention.q.weight)
        # decoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_36 = aten.view.default(linear_66, [batch, target, -1, 64])
        del linear_66
        transpose_48 = aten.transpose.int(view_36, 1, 2)
        del view_36
        # decoder.block.3.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_67 = aten.linear.default(mul_80, self.decoder.block[3].layer[0].SelfAttention.k.weight)
        # decoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_37 = aten.view.default(linear_67, [batch, target, -1, 64])
        del linear_67
        transpose_49 = aten.transpose.int(view_37, 1, 2)
        del view_37
        # decoder.block.3.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_68 = aten.linear.default(mul_80, self.decoder.block[3].layer[0].SelfAttention.v.weight)
        del mul_80
        # decoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_38 = aten.view.default(linear_68, [batch, target, -1, 64])
        del linear_68
        transpose_50 = aten.transpose.int(view_38, 1, 2)
        del view_38
        where_14 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        scaled_dot_product_attention_12 = aten.scaled_dot_product_attention.default(
            transpose_48, transpose_49, transpose_50, where_14, scale=1.0
        )
        del transpose_48, transpose_49, transpose_50, where_14
        transpose_51 = aten.transpose.int(scaled_dot_product_attention_12, 1, 2)
        del scaled_dot_product_attention_12
        reshape_12 = aten.reshape.default(transpose_51, [batch, target, -1])
        del transpose_51
        # decoder.block.3.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_69 = aten.linear.default(reshape_12, self.decoder.block[3].layer[0].SelfAttention.o.weight)
        del reshape_12
        # decoder.block.3.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_58 = aten.add.Tensor(add_56, linear_69)
        del add_56, linear_69
        # decoder.block.3.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_24 = aten.pow.Tensor_Scalar(add_58, 2)
        mean_23 = aten.mean.dim(pow_24, [-1], True)
        del pow_24
        add_59 = aten.add.Tensor(mean_23, 1e-06)
        del mean_23
        rsqrt_23 = aten.rsqrt.default(add_59)
        del add_59
        mul_81 = aten.mul.Tensor(add_58, rsqrt_23)
        del rsqrt_23
        mul_82 = aten.mul.Tensor(self.decoder.block[3].layer[1].layer_norm.weight, mul_81)
        del mul_81
        # decoder.block.3.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_70 = aten.linear.default(mul_82, self.decoder.block[3].layer[1].EncDecAttention.q.weight)
        del mul_82
        # decoder.block.3.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_39 = aten.view.default(linear_70, [batch, target, -1, 64])
        del linear_70
        transpose_52 = aten.transpose.int(view_39, 1, 2)
        del view_39
        # decoder.block.3.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_71 = aten.linear.default(mul_43, self.decoder.block[3].layer[1].EncDecAttention.k.weight)
        # decoder.block.3.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_40 = aten.view.default(linear_71, [batch, source, -1, 64])
        del linear_71
        transpose_53 = aten.transpose.int(view_40, 1, 2)
        del view_40
        # decoder.block.3.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_72 = aten.linear.default(mul_43, self.decoder.block[3].layer[1].EncDecAttention.v.weight)
        # decoder.block.3.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_41 = aten.view.default(linear_72, [batch, source, -1, 64])
        del linear_72
        transpose_54 = aten.transpose.int(view_41, 1, 2)
        del view_41
        where_15 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        scaled_dot_product_attention_13 = aten.scaled_dot_product_attention.default(
            transpose_52, transpose_53, transpose_54, where_15, scale=1.0
        )
        del transpose_52, transpose_53, transpose_54, where_15
        transpose_55 = aten.transpose.int(scaled_dot_product_attention_13, 1, 2)
        del scaled_dot_product_attention_13
        reshape_13 = aten.reshape.default(transpose_55, [batch, target, -1])
        del transpose_55
        # decoder.block.3.layer.1.EncDecAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_73 = aten.linear.default(reshape_13, self.decoder.block[3].layer[1].EncDecAttention.o.weight)
        del reshape_13
        # decoder.block.3.layer.1 (transformers/models/t5/modeling_t5.py:431)
        add_60 = aten.add.Tensor(add_58, linear_73)
        del add_58, linear_73
        # decoder.block.3.layer.2.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_25 = aten.pow.Tensor_Scalar(add_60, 2)
        mean_24 = aten.mean.dim(pow_25, [-1], True)
        del pow_25
        add_61 = aten.add.Tensor(mean_24, 1e-06)
        del mean_24
        rsqrt_24 = aten.rsqrt.default(add_61)
        del add_61
        mul_83 = aten.mul.Tensor(add_60, rsqrt_24)
        del rsqrt_24
        mul_84 = aten.mul.Tensor(self.decoder.block[3].layer[2].layer_norm.weight, mul_83)
        del mul_83
        # decoder.block.3.layer.2.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_74 = aten.linear.default(mul_84, self.decoder.block[3].layer[2].DenseReluDense.wi.weight)
        del mul_84
        # decoder.block.3.layer.2.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_9 = aten.relu.default(linear_74)
        del linear_74
        # decoder.block.3.layer.2.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_75 = aten.linear.default(relu_9, self.decoder.block[3].layer[2].DenseReluDense.wo.weight)
        del relu_9
        # decoder.block.3.layer.2 (transformers/models/t5/modeling_t5.py:140)
        add_62 = aten.add.Tensor(add_60, linear_75)
        del add_60, linear_75
        # decoder.block.4.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_26 = aten.pow.Tensor_Scalar(add_62, 2)
        mean_25 = aten.mean.dim(pow_26, [-1], True)
        del pow_26
        add_63 = aten.add.Tensor(mean_25, 1e-06)
        del mean_25
        rsqrt_25 = aten.rsqrt.default(add_63)
        del add_63
        mul_85 = aten.mul.Tensor(add_62, rsqrt_25)
        del rsqrt_25
        mul_86 = aten.mul.Tensor(self.decoder.block[4].layer[0].layer_norm.weight, mul_85)
        del mul_85
        # decoder.block.4.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_76 = aten.linear.default(mul_86, self.decoder.block[4].layer[0].SelfAttention.q.weight)
        # decoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_42 = aten.view.default(linear_76, [batch, target, -1, 64])
        del linear_76
        transpose_56 = aten.transpose.int(view_42, 1, 2)
        del view_42
        # decoder.block.4.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_77 = aten.linear.default(mul_86, self.decoder.block[4].layer[0].SelfAttention.k.weight)
        # decoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_43 = aten.view.default(linear_77, [batch, target, -1, 64])
        del linear_77
        transpose_57 = aten.transpose.int(view_43, 1, 2)
        del view_43
        # decoder.block.4.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_78 = aten.linear.default(mul_86, self.decoder.block[4].layer[0].SelfAttention.v.weight)
        del mul_86
        # decoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_44 = aten.view.default(linear_78, [batch, target, -1, 64])
        del linear_78
        transpose_58 = aten.transpose.int(view_44, 1, 2)
        del view_44
        where_16 = aten.where.ScalarOther(expand_1, unsqueeze_41, -3.4028234663852886e38)
        del expand_1, unsqueeze_41
        scaled_dot_product_attention_14 = aten.scaled_dot_product_attention.default(
            transpose_56, transpose_57, transpose_58, where_16, scale=1.0
        )
        del transpose_56, transpose_57, transpose_58, where_16
        transpose_59 = aten.transpose.int(scaled_dot_product_attention_14, 1, 2)
        del scaled_dot_product_attention_14
        reshape_14 = aten.reshape.default(transpose_59, [batch, target, -1])
        del transpose_59
        # decoder.block.4.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_79 = aten.linear.default(reshape_14, self.decoder.block[4].layer[0].SelfAttention.o.weight)
        del reshape_14
        # decoder.block.4.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_64 = aten.add.Tensor(add_62, linear_79)
        del add_62, linear_79
        # decoder.block.4.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_27 = aten.pow.Tensor_Scalar(add_64, 2)
        mean_26 = aten.mean.dim(pow_27, [-1], True)
        del pow_27
        add_65 = aten.add.Tensor(mean_26, 1e-06)
        del mean_26
        rsqrt_26 = aten.rsqrt.default(add_65)
        del add_65
        mul_87 = aten.mul.Tensor(add_64, rsqrt_26)
        del rsqrt_26
        mul_88 = aten.mul.Tensor(self.decoder.block[4].layer[1].layer_norm.weight, mul_87)
        del mul_87
        # decoder.block.4.layer.1.EncDecAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_80 = aten.linear.default(mul_88, self.decoder.block[4].layer[1].EncDecAttention.q.weight)
        del mul_88
        # decoder.block.4.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:304)
        view_45 = aten.view.default(linear_80, [batch, target, -1, 64])
        del linear_80
        transpose_60 = aten.transpose.int(view_45, 1, 2)
        del view_45
        # decoder.block.4.layer.1.EncDecAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_81 = aten.linear.default(mul_43, self.decoder.block[4].layer[1].EncDecAttention.k.weight)
        # decoder.block.4.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:325)
        view_46 = aten.view.default(linear_81, [batch, source, -1, 64])
        del linear_81
        transpose_61 = aten.transpose.int(view_46, 1, 2)
        del view_46
        # decoder.block.4.layer.1.EncDecAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_82 = aten.linear.default(mul_43, self.decoder.block[4].layer[1].EncDecAttention.v.weight)
        # decoder.block.4.layer.1.EncDecAttention (transformers/models/t5/modeling_t5.py:326)
        view_47 = aten.view.default(linear_82, [batch, source, -1, 64])
        del linear_82
        transpose_62 = aten.transpose.int(view_47, 1, 2)
        del view_47
        where_17 = aten.where.ScalarOther(expand_2, zeros, -3.4028234663852886e38)
        del expand_2, zeros
        scaled_dot_product_attention_15 = aten.scaled_dot_product_attention.default(
            transpose_60, transpose_61, transpose_62, where_17, scale=1.0
        )
        del transpose_60, transpose_61, transpose_62, where_17
        return (scaled_dot_product_attention_15, add_64, mul_43)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
