"""t5, stage 0 of 3, for cpu.

takes    input_ids: int64[batch, source], an input of the model
takes    attention_mask: int64[batch, source], an input of the model
returns  add_27: float32[batch, source, 512], to stage 1
holds    47 parameters, 126.8 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(input_ids, attention_mask)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "input_ids": (None, torch.int64, ("batch", "source")),
    "attention_mask": (None, torch.int64, ("batch", "source")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "add_27": ([1], [], torch.float32, ("batch", "source", 512)),
}

# name: (dtype, shape)
PARAMETERS = {
    "encoder.embed_tokens.weight": (torch.float32, (32128, 512)),
    "encoder.block.0.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.0.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.0.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.0.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (torch.float32, (32, 8)),
    "encoder.block.0.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.0.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.0.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.0.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.1.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.1.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.1.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.1.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.1.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.1.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.1.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.1.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.2.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.2.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.2.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.2.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.2.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.2.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.2.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.2.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.3.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.3.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.3.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.3.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.3.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.3.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.3.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.3.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.4.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.4.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.4.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.4.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.4.layer.0.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.4.layer.1.DenseReluDense.wi.weight": (torch.float32, (2048, 512)),
    "encoder.block.4.layer.1.DenseReluDense.wo.weight": (torch.float32, (512, 2048)),
    "encoder.block.4.layer.1.layer_norm.weight": (torch.float32, (512,)),
    "encoder.block.5.layer.0.SelfAttention.q.weight": (torch.float32, (512, 512)),
    "encoder.block.5.layer.0.SelfAttention.k.weight": (torch.float32, (512, 512)),
    "encoder.block.5.layer.0.SelfAttention.v.weight": (torch.float32, (512, 512)),
    "encoder.block.5.layer.0.SelfAttention.o.weight": (torch.float32, (512, 512)),
    "encoder.block.5.layer.0.layer_norm.weight": (torch.float32, (512,)),
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
        source = input_ids.shape[1]
        device = input_ids.device
        # encoder.embed_tokens (transformers/models/t5/modeling_t5.py:678)
        embedding = aten.embedding.default(self.encoder.embed_tokens.weight, input_ids)
        del input_ids
        # encoder (transformers/models/t5/modeling_t5.py:707)
        to = aten.to.device(attention_mask, device, torch.bool)
        del attention_mask
        arange = aten.arange.default(batch, device=device)
        arange_2 = aten.arange.default(source, device=device)
        add_1 = aten.add.Tensor(arange_2, 0)
        del arange_2
        arange_3 = aten.arange.default(source, device=device)
        add_2 = aten.add.Tensor(arange_3, 0)
        del arange_3
        unsqueeze = aten.unsqueeze.default(arange, 1)
        del arange
        unsqueeze_1 = aten.unsqueeze.default(unsqueeze, 2)
        del unsqueeze
        unsqueeze_2 = aten.unsqueeze.default(unsqueeze_1, 3)
        del unsqueeze_1
        unsqueeze_6 = aten.unsqueeze.default(add_1, 0)
        del add_1
        unsqueeze_7 = aten.unsqueeze.default(unsqueeze_6, 1)
        del unsqueeze_6
        unsqueeze_8 = aten.unsqueeze.default(unsqueeze_7, 3)
        del unsqueeze_7
        unsqueeze_9 = aten.unsqueeze.default(add_2, 0)
        del add_2
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
        expand = aten.expand.default(and_2, [batch, -1, source, source])
        del and_2
        # encoder.block.0.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_1 = aten.pow.Tensor_Scalar(embedding, 2)
        mean = aten.mean.dim(pow_1, [-1], True)
        del pow_1
        add_3 = aten.add.Tensor(mean, 1e-06)
        del mean
        rsqrt = aten.rsqrt.default(add_3)
        del add_3
        mul = aten.mul.Tensor(embedding, rsqrt)
        del rsqrt
        mul_1 = aten.mul.Tensor(self.encoder.block[0].layer[0].layer_norm.weight, mul)
        del mul
        # encoder.block.0.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear = aten.linear.default(mul_1, self.encoder.block[0].layer[0].SelfAttention.q.weight)
        # encoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view = aten.view.default(linear, [batch, source, -1, 64])
        del linear
        transpose = aten.transpose.int(view, 1, 2)
        del view
        # encoder.block.0.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_1 = aten.linear.default(mul_1, self.encoder.block[0].layer[0].SelfAttention.k.weight)
        # encoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_1 = aten.view.default(linear_1, [batch, source, -1, 64])
        del linear_1
        transpose_1 = aten.transpose.int(view_1, 1, 2)
        del view_1
        # encoder.block.0.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_2 = aten.linear.default(mul_1, self.encoder.block[0].layer[0].SelfAttention.v.weight)
        del mul_1
        # encoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_2 = aten.view.default(linear_2, [batch, source, -1, 64])
        del linear_2
        transpose_2 = aten.transpose.int(view_2, 1, 2)
        del view_2
        arange_4 = aten.arange.default(source, dtype=torch.int64, device=device)
        unsqueeze_12 = aten.unsqueeze.default(arange_4, 1)
        del arange_4
        add_4 = aten.add.Tensor(unsqueeze_12, 0)
        del unsqueeze_12
        arange_5 = aten.arange.default(source, dtype=torch.int64, device=device)
        unsqueeze_13 = aten.unsqueeze.default(arange_5, 0)
        del arange_5
        sub_1 = aten.sub.Tensor(unsqueeze_13, add_4)
        del unsqueeze_13, add_4
        gt_1 = aten.gt.Scalar(sub_1, 0)
        to_4 = aten.to.dtype(gt_1, torch.int64)
        del gt_1
        mul_2 = aten.mul.Tensor(to_4, 16)
        del to_4
        add_5 = aten.add.Tensor(mul_2, 0)
        del mul_2
        abs_1 = aten.abs.default(sub_1)
        del sub_1
        lt = aten.lt.Scalar(abs_1, 8)
        to_5 = aten.to.dtype(abs_1, torch.float32)
        div = aten.div.Tensor(to_5, 8)
        del to_5
        log = aten.log.default(div)
        del div
        div_1 = aten.div.Tensor(log, 2.772588722239781)
        del log
        mul_3 = aten.mul.Tensor(div_1, 8)
        del div_1
        to_6 = aten.to.dtype(mul_3, torch.int64)
        del mul_3
        add_6 = aten.add.Tensor(to_6, 8)
        del to_6
        full_like = aten.full_like.default(add_6, 15)
        min_1 = aten.min.other(add_6, full_like)
        del add_6, full_like
        where = aten.where.self(lt, abs_1, min_1)
        del lt, abs_1, min_1
        add_ = aten.add.Tensor(add_5, where)
        del add_5, where
        # encoder.block.0.layer.0.SelfAttention.relative_attention_bias (transformers/models/t5/modeling_t5.py:346)
        embedding_1 = aten.embedding.default(
            self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, add_
        )
        del add_
        # encoder.block.0.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:346)
        permute = aten.permute.default(embedding_1, [2, 0, 1])
        del embedding_1
        unsqueeze_14 = aten.unsqueeze.default(permute, 0)
        del permute
        where_1 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        scaled_dot_product_attention = aten.scaled_dot_product_attention.default(
            transpose, transpose_1, transpose_2, where_1, scale=1.0
        )
        del transpose, transpose_1, transpose_2, where_1
        transpose_3 = aten.transpose.int(scaled_dot_product_attention, 1, 2)
        del scaled_dot_product_attention
        reshape = aten.reshape.default(transpose_3, [batch, source, -1])
        del transpose_3
        # encoder.block.0.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_3 = aten.linear.default(reshape, self.encoder.block[0].layer[0].SelfAttention.o.weight)
        del reshape
        # encoder.block.0.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_7 = aten.add.Tensor(embedding, linear_3)
        del embedding, linear_3
        # encoder.block.0.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_2 = aten.pow.Tensor_Scalar(add_7, 2)
        mean_1 = aten.mean.dim(pow_2, [-1], True)
        del pow_2
        add_8 = aten.add.Tensor(mean_1, 1e-06)
        del mean_1
        rsqrt_1 = aten.rsqrt.default(add_8)
        del add_8
        mul_12 = aten.mul.Tensor(add_7, rsqrt_1)
        del rsqrt_1
        mul_13 = aten.mul.Tensor(self.encoder.block[0].layer[1].layer_norm.weight, mul_12)
        del mul_12
        # encoder.block.0.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_4 = aten.linear.default(mul_13, self.encoder.block[0].layer[1].DenseReluDense.wi.weight)
        del mul_13
        # encoder.block.0.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu = aten.relu.default(linear_4)
        del linear_4
        # encoder.block.0.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_5 = aten.linear.default(relu, self.encoder.block[0].layer[1].DenseReluDense.wo.weight)
        del relu
        # encoder.block.0.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_9 = aten.add.Tensor(add_7, linear_5)
        del add_7, linear_5
        # encoder.block.1.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_3 = aten.pow.Tensor_Scalar(add_9, 2)
        mean_2 = aten.mean.dim(pow_3, [-1], True)
        del pow_3
        add_10 = aten.add.Tensor(mean_2, 1e-06)
        del mean_2
        rsqrt_2 = aten.rsqrt.default(add_10)
        del add_10
        mul_14 = aten.mul.Tensor(add_9, rsqrt_2)
        del rsqrt_2
        mul_15 = aten.mul.Tensor(self.encoder.block[1].layer[0].layer_norm.weight, mul_14)
        del mul_14
        # encoder.block.1.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_6 = aten.linear.default(mul_15, self.encoder.block[1].layer[0].SelfAttention.q.weight)
        # encoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_3 = aten.view.default(linear_6, [batch, source, -1, 64])
        del linear_6
        transpose_4 = aten.transpose.int(view_3, 1, 2)
        del view_3
        # encoder.block.1.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_7 = aten.linear.default(mul_15, self.encoder.block[1].layer[0].SelfAttention.k.weight)
        # encoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_4 = aten.view.default(linear_7, [batch, source, -1, 64])
        del linear_7
        transpose_5 = aten.transpose.int(view_4, 1, 2)
        del view_4
        # encoder.block.1.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_8 = aten.linear.default(mul_15, self.encoder.block[1].layer[0].SelfAttention.v.weight)
        del mul_15
        # encoder.block.1.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_5 = aten.view.default(linear_8, [batch, source, -1, 64])
        del linear_8
        transpose_6 = aten.transpose.int(view_5, 1, 2)
        del view_5
        where_2 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        scaled_dot_product_attention_1 = aten.scaled_dot_product_attention.default(
            transpose_4, transpose_5, transpose_6, where_2, scale=1.0
        )
        del transpose_4, transpose_5, transpose_6, where_2
        transpose_7 = aten.transpose.int(scaled_dot_product_attention_1, 1, 2)
        del scaled_dot_product_attention_1
        reshape_1 = aten.reshape.default(transpose_7, [batch, source, -1])
        del transpose_7
        # encoder.block.1.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_9 = aten.linear.default(reshape_1, self.encoder.block[1].layer[0].SelfAttention.o.weight)
        del reshape_1
        # encoder.block.1.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_11 = aten.add.Tensor(add_9, linear_9)
        del add_9, linear_9
        # encoder.block.1.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_4 = aten.pow.Tensor_Scalar(add_11, 2)
        mean_3 = aten.mean.dim(pow_4, [-1], True)
        del pow_4
        add_12 = aten.add.Tensor(mean_3, 1e-06)
        del mean_3
        rsqrt_3 = aten.rsqrt.default(add_12)
        del add_12
        mul_16 = aten.mul.Tensor(add_11, rsqrt_3)
        del rsqrt_3
        mul_17 = aten.mul.Tensor(self.encoder.block[1].layer[1].layer_norm.weight, mul_16)
        del mul_16
        # encoder.block.1.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_10 = aten.linear.default(mul_17, self.encoder.block[1].layer[1].DenseReluDense.wi.weight)
        del mul_17
        # encoder.block.1.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_1 = aten.relu.default(linear_10)
        del linear_10
        # encoder.block.1.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_11 = aten.linear.default(relu_1, self.encoder.block[1].layer[1].DenseReluDense.wo.weight)
        del relu_1
        # encoder.block.1.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_13 = aten.add.Tensor(add_11, linear_11)
        del add_11, linear_11
        # encoder.block.2.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_5 = aten.pow.Tensor_Scalar(add_13, 2)
        mean_4 = aten.mean.dim(pow_5, [-1], True)
        del pow_5
        add_14 = aten.add.Tensor(mean_4, 1e-06)
        del mean_4
        rsqrt_4 = aten.rsqrt.default(add_14)
        del add_14
        mul_18 = aten.mul.Tensor(add_13, rsqrt_4)
        del rsqrt_4
        mul_19 = aten.mul.Tensor(self.encoder.block[2].layer[0].layer_norm.weight, mul_18)
        del mul_18
        # encoder.block.2.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_12 = aten.linear.default(mul_19, self.encoder.block[2].layer[0].SelfAttention.q.weight)
        # encoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_6 = aten.view.default(linear_12, [batch, source, -1, 64])
        del linear_12
        transpose_8 = aten.transpose.int(view_6, 1, 2)
        del view_6
        # encoder.block.2.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_13 = aten.linear.default(mul_19, self.encoder.block[2].layer[0].SelfAttention.k.weight)
        # encoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_7 = aten.view.default(linear_13, [batch, source, -1, 64])
        del linear_13
        transpose_9 = aten.transpose.int(view_7, 1, 2)
        del view_7
        # encoder.block.2.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_14 = aten.linear.default(mul_19, self.encoder.block[2].layer[0].SelfAttention.v.weight)
        del mul_19
        # encoder.block.2.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_8 = aten.view.default(linear_14, [batch, source, -1, 64])
        del linear_14
        transpose_10 = aten.transpose.int(view_8, 1, 2)
        del view_8
        where_3 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        scaled_dot_product_attention_2 = aten.scaled_dot_product_attention.default(
            transpose_8, transpose_9, transpose_10, where_3, scale=1.0
        )
        del transpose_8, transpose_9, transpose_10, where_3
        transpose_11 = aten.transpose.int(scaled_dot_product_attention_2, 1, 2)
        del scaled_dot_product_attention_2
        reshape_2 = aten.reshape.default(transpose_11, [batch, source, -1])
        del transpose_11
        # encoder.block.2.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_15 = aten.linear.default(reshape_2, self.encoder.block[2].layer[0].SelfAttention.o.weight)
        del reshape_2
        # encoder.block.2.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_15 = aten.add.Tensor(add_13, linear_15)
        del add_13, linear_15
        # encoder.block.2.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_6 = aten.pow.Tensor_Scalar(add_15, 2)
        mean_5 = aten.mean.dim(pow_6, [-1], True)
        del pow_6
        add_16 = aten.add.Tensor(mean_5, 1e-06)
        del mean_5
        rsqrt_5 = aten.rsqrt.default(add_16)
        del add_16
        mul_28 = aten.mul.Tensor(add_15, rsqrt_5)
        del rsqrt_5
        mul_29 = aten.mul.Tensor(self.encoder.block[2].layer[1].layer_norm.weight, mul_28)
        del mul_28
        # encoder.block.2.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_16 = aten.linear.default(mul_29, self.encoder.block[2].layer[1].DenseReluDense.wi.weight)
        del mul_29
        # encoder.block.2.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_2 = aten.relu.default(linear_16)
        del linear_16
        # encoder.block.2.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_17 = aten.linear.default(relu_2, self.encoder.block[2].layer[1].DenseReluDense.wo.weight)
        del relu_2
        # encoder.block.2.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_17 = aten.add.Tensor(add_15, linear_17)
        del add_15, linear_17
        # encoder.block.3.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_7 = aten.pow.Tensor_Scalar(add_17, 2)
        mean_6 = aten.mean.dim(pow_7, [-1], True)
        del pow_7
        add_18 = aten.add.Tensor(mean_6, 1e-06)
        del mean_6
        rsqrt_6 = aten.rsqrt.default(add_18)
        del add_18
        mul_30 = aten.mul.Tensor(add_17, rsqrt_6)
        del rsqrt_6
        mul_31 = aten.mul.Tensor(self.encoder.block[3].layer[0].layer_norm.weight, mul_30)
        del mul_30
        # encoder.block.3.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_18 = aten.linear.default(mul_31, self.encoder.block[3].layer[0].SelfAttention.q.weight)
        # encoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_9 = aten.view.default(linear_18, [batch, source, -1, 64])
        del linear_18
        transpose_12 = aten.transpose.int(view_9, 1, 2)
        del view_9
        # encoder.block.3.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_19 = aten.linear.default(mul_31, self.encoder.block[3].layer[0].SelfAttention.k.weight)
        # encoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_10 = aten.view.default(linear_19, [batch, source, -1, 64])
        del linear_19
        transpose_13 = aten.transpose.int(view_10, 1, 2)
        del view_10
        # encoder.block.3.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_20 = aten.linear.default(mul_31, self.encoder.block[3].layer[0].SelfAttention.v.weight)
        del mul_31
        # encoder.block.3.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_11 = aten.view.default(linear_20, [batch, source, -1, 64])
        del linear_20
        transpose_14 = aten.transpose.int(view_11, 1, 2)
        del view_11
        where_4 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        scaled_dot_product_attention_3 = aten.scaled_dot_product_attention.default(
            transpose_12, transpose_13, transpose_14, where_4, scale=1.0
        )
        del transpose_12, transpose_13, transpose_14, where_4
        transpose_15 = aten.transpose.int(scaled_dot_product_attention_3, 1, 2)
        del scaled_dot_product_attention_3
        reshape_3 = aten.reshape.default(transpose_15, [batch, source, -1])
        del transpose_15
        # encoder.block.3.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_21 = aten.linear.default(reshape_3, self.encoder.block[3].layer[0].SelfAttention.o.weight)
        del reshape_3
        # encoder.block.3.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_19 = aten.add.Tensor(add_17, linear_21)
        del add_17, linear_21
        # encoder.block.3.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_8 = aten.pow.Tensor_Scalar(add_19, 2)
        mean_7 = aten.mean.dim(pow_8, [-1], True)
        del pow_8
        add_20 = aten.add.Tensor(mean_7, 1e-06)
        del mean_7
        rsqrt_7 = aten.rsqrt.default(add_20)
        del add_20
        mul_32 = aten.mul.Tensor(add_19, rsqrt_7)
        del rsqrt_7
        mul_33 = aten.mul.Tensor(self.encoder.block[3].layer[1].layer_norm.weight, mul_32)
        del mul_32
        # encoder.block.3.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_22 = aten.linear.default(mul_33, self.encoder.block[3].layer[1].DenseReluDense.wi.weight)
        del mul_33
        # encoder.block.3.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_3 = aten.relu.default(linear_22)
        del linear_22
        # encoder.block.3.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_23 = aten.linear.default(relu_3, self.encoder.block[3].layer[1].DenseReluDense.wo.weight)
        del relu_3
        # encoder.block.3.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_21 = aten.add.Tensor(add_19, linear_23)
        del add_19, linear_23
        # encoder.block.4.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_9 = aten.pow.Tensor_Scalar(add_21, 2)
        mean_8 = aten.mean.dim(pow_9, [-1], True)
        del pow_9
        add_22 = aten.add.Tensor(mean_8, 1e-06)
        del mean_8
        rsqrt_8 = aten.rsqrt.default(add_22)
        del add_22
        mul_34 = aten.mul.Tensor(add_21, rsqrt_8)
        del rsqrt_8
        mul_35 = aten.mul.Tensor(self.encoder.block[4].layer[0].layer_norm.weight, mul_34)
        del mul_34
        # encoder.block.4.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_24 = aten.linear.default(mul_35, self.encoder.block[4].layer[0].SelfAttention.q.weight)
        # encoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_12 = aten.view.default(linear_24, [batch, source, -1, 64])
        del linear_24
        transpose_16 = aten.transpose.int(view_12, 1, 2)
        del view_12
        # encoder.block.4.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_25 = aten.linear.default(mul_35, self.encoder.block[4].layer[0].SelfAttention.k.weight)
        # encoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_13 = aten.view.default(linear_25, [batch, source, -1, 64])
        del linear_25
        transpose_17 = aten.transpose.int(view_13, 1, 2)
        del view_13
        # encoder.block.4.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_26 = aten.linear.default(mul_35, self.encoder.block[4].layer[0].SelfAttention.v.weight)
        del mul_35
        # encoder.block.4.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_14 = aten.view.default(linear_26, [batch, source, -1, 64])
        del linear_26
        transpose_18 = aten.transpose.int(view_14, 1, 2)
        del view_14
        where_5 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        scaled_dot_product_attention_4 = aten.scaled_dot_product_attention.default(
            transpose_16, transpose_17, transpose_18, where_5, scale=1.0
        )
        del transpose_16, transpose_17, transpose_18, where_5
        transpose_19 = aten.transpose.int(scaled_dot_product_attention_4, 1, 2)
        del scaled_dot_product_attention_4
        reshape_4 = aten.reshape.default(transpose_19, [batch, source, -1])
        del transpose_19
        # encoder.block.4.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_27 = aten.linear.default(reshape_4, self.encoder.block[4].layer[0].SelfAttention.o.weight)
        del reshape_4
        # encoder.block.4.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_23 = aten.add.Tensor(add_21, linear_27)
        del add_21, linear_27
        # encoder.block.4.layer.1.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_10 = aten.pow.Tensor_Scalar(add_23, 2)
        mean_9 = aten.mean.dim(pow_10, [-1], True)
        del pow_10
        add_24 = aten.add.Tensor(mean_9, 1e-06)
        del mean_9
        rsqrt_9 = aten.rsqrt.default(add_24)
        del add_24
        mul_36 = aten.mul.Tensor(add_23, rsqrt_9)
        del rsqrt_9
        mul_37 = aten.mul.Tensor(self.encoder.block[4].layer[1].layer_norm.weight, mul_36)
        del mul_36
        # encoder.block.4.layer.1.DenseReluDense.wi (transformers/models/t5/modeling_t5.py:84)
        linear_28 = aten.linear.default(mul_37, self.encoder.block[4].layer[1].DenseReluDense.wi.weight)
        del mul_37
        # encoder.block.4.layer.1.DenseReluDense.act (transformers/models/t5/modeling_t5.py:85)
        relu_4 = aten.relu.default(linear_28)
        del linear_28
        # encoder.block.4.layer.1.DenseReluDense.wo (transformers/models/t5/modeling_t5.py:93)
        linear_29 = aten.linear.default(relu_4, self.encoder.block[4].layer[1].DenseReluDense.wo.weight)
        del relu_4
        # encoder.block.4.layer.1 (transformers/models/t5/modeling_t5.py:140)
        add_25 = aten.add.Tensor(add_23, linear_29)
        del add_23, linear_29
        # encoder.block.5.layer.0.layer_norm (transformers/models/t5/modeling_t5.py:65)
        pow_11 = aten.pow.Tensor_Scalar(add_25, 2)
        mean_10 = aten.mean.dim(pow_11, [-1], True)
        del pow_11
        add_26 = aten.add.Tensor(mean_10, 1e-06)
        del mean_10
        rsqrt_10 = aten.rsqrt.default(add_26)
        del add_26
        mul_38 = aten.mul.Tensor(add_25, rsqrt_10)
        del rsqrt_10
        mul_39 = aten.mul.Tensor(self.encoder.block[5].layer[0].layer_norm.weight, mul_38)
        del mul_38
        # encoder.block.5.layer.0.SelfAttention.q (transformers/models/t5/modeling_t5.py:304)
        linear_30 = aten.linear.default(mul_39, self.encoder.block[5].layer[0].SelfAttention.q.weight)
        # encoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:304)
        view_15 = aten.view.default(linear_30, [batch, source, -1, 64])
        del linear_30
        transpose_20 = aten.transpose.int(view_15, 1, 2)
        del view_15
        # encoder.block.5.layer.0.SelfAttention.k (transformers/models/t5/modeling_t5.py:325)
        linear_31 = aten.linear.default(mul_39, self.encoder.block[5].layer[0].SelfAttention.k.weight)
        # encoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:325)
        view_16 = aten.view.default(linear_31, [batch, source, -1, 64])
        del linear_31
        transpose_21 = aten.transpose.int(view_16, 1, 2)
        del view_16
        # encoder.block.5.layer.0.SelfAttention.v (transformers/models/t5/modeling_t5.py:326)
        linear_32 = aten.linear.default(mul_39, self.encoder.block[5].layer[0].SelfAttention.v.weight)
        del mul_39
        # encoder.block.5.layer.0.SelfAttention (transformers/models/t5/modeling_t5.py:326)
        view_17 = aten.view.default(linear_32, [batch, source, -1, 64])
        del linear_32
        transpose_22 = aten.transpose.int(view_17, 1, 2)
        del view_17
        where_6 = aten.where.ScalarOther(expand, unsqueeze_14, -3.4028234663852886e38)
        del expand, unsqueeze_14
        scaled_dot_product_attention_5 = aten.scaled_dot_product_attention.default(
            transpose_20, transpose_21, transpose_22, where_6, scale=1.0
        )
        del transpose_20, transpose_21, transpose_22, where_6
        transpose_23 = aten.transpose.int(scaled_dot_product_attention_5, 1, 2)
        del scaled_dot_product_attention_5
        reshape_5 = aten.reshape.default(transpose_23, [batch, source, -1])
        del transpose_23
        # encoder.block.5.layer.0.SelfAttention.o (transformers/models/t5/modeling_t5.py:367)
        linear_33 = aten.linear.default(reshape_5, self.encoder.block[5].layer[0].SelfAttention.o.weight)
        del reshape_5
        # encoder.block.5.layer.0 (transformers/models/t5/modeling_t5.py:400)
        add_27 = aten.add.Tensor(add_25, linear_33)
        del add_25, linear_33
        return (add_27,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
