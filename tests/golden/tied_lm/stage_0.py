"""tied_lm, stage 0 of 2, for cpu.

takes    tokens: int64[batch, seq], an input of the model
returns  scaled_dot_product_attention_4: float32[batch, 8, seq, 32], to stage 1
returns  add_8: float32[batch, seq, 256], to stage 1
holds    54 parameters, 21.1 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(tokens)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "tokens": (None, torch.int64, ("batch", "seq")),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "scaled_dot_product_attention_4": ([1], [], torch.float32, ("batch", 8, "seq", 32)),
    "add_8": ([1], [], torch.float32, ("batch", "seq", 256)),
}

# name: (dtype, shape)
PARAMETERS = {
    "embedding.weight": (torch.float32, (8000, 256)),
    "position.weight": (torch.float32, (512, 256)),
    "blocks.0.norm1.weight": (torch.float32, (256,)),
    "blocks.0.norm1.bias": (torch.float32, (256,)),
    "blocks.0.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.0.query_key_value.bias": (torch.float32, (768,)),
    "blocks.0.out.weight": (torch.float32, (256, 256)),
    "blocks.0.out.bias": (torch.float32, (256,)),
    "blocks.0.norm2.weight": (torch.float32, (256,)),
    "blocks.0.norm2.bias": (torch.float32, (256,)),
    "blocks.0.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.0.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.0.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.0.feed_forward.2.bias": (torch.float32, (256,)),
    "blocks.1.norm1.weight": (torch.float32, (256,)),
    "blocks.1.norm1.bias": (torch.float32, (256,)),
    "blocks.1.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.1.query_key_value.bias": (torch.float32, (768,)),
    "blocks.1.out.weight": (torch.float32, (256, 256)),
    "blocks.1.out.bias": (torch.float32, (256,)),
    "blocks.1.norm2.weight": (torch.float32, (256,)),
    "blocks.1.norm2.bias": (torch.float32, (256,)),
    "blocks.1.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.1.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.1.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.1.feed_forward.2.bias": (torch.float32, (256,)),
    "blocks.2.norm1.weight": (torch.float32, (256,)),
    "blocks.2.norm1.bias": (torch.float32, (256,)),
    "blocks.2.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.2.query_key_value.bias": (torch.float32, (768,)),
    "blocks.2.out.weight": (torch.float32, (256, 256)),
    "blocks.2.out.bias": (torch.float32, (256,)),
    "blocks.2.norm2.weight": (torch.float32, (256,)),
    "blocks.2.norm2.bias": (torch.float32, (256,)),
    "blocks.2.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.2.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.2.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.2.feed_forward.2.bias": (torch.float32, (256,)),
    "blocks.3.norm1.weight": (torch.float32, (256,)),
    "blocks.3.norm1.bias": (torch.float32, (256,)),
    "blocks.3.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.3.query_key_value.bias": (torch.float32, (768,)),
    "blocks.3.out.weight": (torch.float32, (256, 256)),
    "blocks.3.out.bias": (torch.float32, (256,)),
    "blocks.3.norm2.weight": (torch.float32, (256,)),
    "blocks.3.norm2.bias": (torch.float32, (256,)),
    "blocks.3.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.3.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.3.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.3.feed_forward.2.bias": (torch.float32, (256,)),
    "blocks.4.norm1.weight": (torch.float32, (256,)),
    "blocks.4.norm1.bias": (torch.float32, (256,)),
    "blocks.4.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.4.query_key_value.bias": (torch.float32, (768,)),
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

    def forward(self, tokens):
        seq = tokens.shape[1]
        device = tokens.device
        # the model itself (examples/tied_lm.py:46)
        arange = aten.arange.default(seq, device=device)
        # embedding (examples/tied_lm.py:47)
        embedding = aten.embedding.default(self.embedding.weight, tokens)
        del tokens
        # position (examples/tied_lm.py:47)
        embedding_1 = aten.embedding.default(self.position.weight, arange)
        del arange
        # the model itself (examples/tied_lm.py:47)
        add = aten.add.Tensor(embedding, embedding_1)
        del embedding, embedding_1
        # blocks.0.norm1 (examples/tied_lm.py:26)
        layer_norm = aten.layer_norm.default(
            add, [256], self.blocks[0].norm1.weight, self.blocks[0].norm1.bias, 1e-05, False
        )
        # blocks.0.query_key_value (examples/tied_lm.py:26)
        linear = aten.linear.default(
            layer_norm, self.blocks[0].query_key_value.weight, self.blocks[0].query_key_value.bias
        )
        del layer_norm
        # blocks.0 (examples/tied_lm.py:26)
        unflatten = aten.unflatten.int(linear, -1, [3, 8, -1])
        del linear
        permute = aten.permute.default(unflatten, [2, 0, 3, 1, 4])
        del unflatten
        getitem, getitem_1, getitem_2 = aten.unbind.int(permute)
        del permute
        scaled_dot_product_attention = aten.scaled_dot_product_attention.default(
            getitem, getitem_1, getitem_2, None, 0.0, True
        )
        del getitem, getitem_1, getitem_2
        transpose = aten.transpose.int(scaled_dot_product_attention, 1, 2)
        del scaled_dot_product_attention
        flatten = aten.flatten.using_ints(transpose, 2)
        del transpose
        # blocks.0.out (examples/tied_lm.py:29)
        linear_1 = aten.linear.default(flatten, self.blocks[0].out.weight, self.blocks[0].out.bias)
        del flatten
        # blocks.0 (examples/tied_lm.py:29)
        add_1 = aten.add.Tensor(add, linear_1)
        del add, linear_1
        # blocks.0.norm2 (examples/tied_lm.py:30)
        layer_norm_1 = aten.layer_norm.default(
            add_1, [256], self.blocks[0].norm2.weight, self.blocks[0].norm2.bias, 1e-05, False
        )
        # blocks.0.feed_forward.0 (examples/tied_lm.py:30)
        linear_2 = aten.linear.default(
            layer_norm_1, self.blocks[0].feed_forward[0].weight, self.blocks[0].feed_forward[0].bias
        )
        del layer_norm_1
        # blocks.0.feed_forward.1 (examples/tied_lm.py:30)
        gelu = aten.gelu.default(linear_2)
        del linear_2
        # blocks.0.feed_forward.2 (examples/tied_lm.py:30)
        linear_3 = aten.linear.default(gelu, self.blocks[0].feed_forward[2].weight, self.blocks[0].feed_forward[2].bias)
        del gelu
        # blocks.0 (examples/tied_lm.py:30)
        add_2 = aten.add.Tensor(add_1, linear_3)
        del add_1, linear_3
        # blocks.1.norm1 (examples/tied_lm.py:26)
        layer_norm_2 = aten.layer_norm.default(
            add_2, [256], self.blocks[1].norm1.weight, self.blocks[1].norm1.bias, 1e-05, False
        )
        # blocks.1.query_key_value (examples/tied_lm.py:26)
        linear_4 = aten.linear.default(
            layer_norm_2, self.blocks[1].query_key_value.weight, self.blocks[1].query_key_value.bias
        )
        del layer_norm_2
        # blocks.1 (examples/tied_lm.py:26)
        unflatten_1 = aten.unflatten.int(linear_4, -1, [3, 8, -1])
        del linear_4
        permute_1 = aten.permute.default(unflatten_1, [2, 0, 3, 1, 4])
        del unflatten_1
        getitem_3, getitem_4, getitem_5 = aten.unbind.int(permute_1)
        del permute_1
        scaled_dot_product_attention_1 = aten.scaled_dot_product_attention.default(
            getitem_3, getitem_4, getitem_5, None, 0.0, True
        )
        del getitem_3, getitem_4, getitem_5
        transpose_1 = aten.transpose.int(scaled_dot_product_attention_1, 1, 2)
        del scaled_dot_product_attention_1
        flatten_1 = aten.flatten.using_ints(transpose_1, 2)
        del transpose_1
        # blocks.1.out (examples/tied_lm.py:29)
        linear_5 = aten.linear.default(flatten_1, self.blocks[1].out.weight, self.blocks[1].out.bias)
        del flatten_1
        # blocks.1 (examples/tied_lm.py:29)
        add_3 = aten.add.Tensor(add_2, linear_5)
        del add_2, linear_5
        # blocks.1.norm2 (examples/tied_lm.py:30)
        layer_norm_3 = aten.layer_norm.default(
            add_3, [256], self.blocks[1].norm2.weight, self.blocks[1].norm2.bias, 1e-05, False
        )
        # blocks.1.feed_forward.0 (examples/tied_lm.py:30)
        linear_6 = aten.linear.default(
            layer_norm_3, self.blocks[1].feed_forward[0].weight, self.blocks[1].feed_forward[0].bias
        )
        del layer_norm_3
        # blocks.1.feed_forward.1 (examples/tied_lm.py:30)
        gelu_1 = aten.gelu.default(linear_6)
        del linear_6
        # blocks.1.feed_forward.2 (examples/tied_lm.py:30)
        linear_7 = aten.linear.default(
            gelu_1, self.blocks[1].feed_forward[2].weight, self.blocks[1].feed_forward[2].bias
        )
        del gelu_1
        # blocks.1 (examples/tied_lm.py:30)
        add_4 = aten.add.Tensor(add_3, linear_7)
        del add_3, linear_7
        # blocks.2.norm1 (examples/tied_lm.py:26)
        layer_norm_4 = aten.layer_norm.default(
            add_4, [256], self.blocks[2].norm1.weight, self.blocks[2].norm1.bias, 1e-05, False
        )
        # blocks.2.query_key_value (examples/tied_lm.py:26)
        linear_8 = aten.linear.default(
            layer_norm_4, self.blocks[2].query_key_value.weight, self.blocks[2].query_key_value.bias
        )
        del layer_norm_4
        # blocks.2 (examples/tied_lm.py:26)
        unflatten_2 = aten.unflatten.int(linear_8, -1, [3, 8, -1])
        del linear_8
        permute_2 = aten.permute.default(unflatten_2, [2, 0, 3, 1, 4])
        del unflatten_2
        getitem_6, getitem_7, getitem_8 = aten.unbind.int(permute_2)
        del permute_2
        scaled_dot_product_attention_2 = aten.scaled_dot_product_attention.default(
            getitem_6, getitem_7, getitem_8, None, 0.0, True
        )
        del getitem_6, getitem_7, getitem_8
        transpose_2 = aten.transpose.int(scaled_dot_product_attention_2, 1, 2)
        del scaled_dot_product_attention_2
        flatten_2 = aten.flatten.using_ints(transpose_2, 2)
        del transpose_2
        # blocks.2.out (examples/tied_lm.py:29)
        linear_9 = aten.linear.default(flatten_2, self.blocks[2].out.weight, self.blocks[2].out.bias)
        del flatten_2
        # blocks.2 (examples/tied_lm.py:29)
        add_5 = aten.add.Tensor(add_4, linear_9)
        del add_4, linear_9
        # blocks.2.norm2 (examples/tied_lm.py:30)
        layer_norm_5 = aten.layer_norm.default(
            add_5, [256], self.blocks[2].norm2.weight, self.blocks[2].norm2.bias, 1e-05, False
        )
        # blocks.2.feed_forward.0 (examples/tied_lm.py:30)
        linear_10 = aten.linear.default(
            layer_norm_5, self.blocks[2].feed_forward[0].weight, self.blocks[2].feed_forward[0].bias
        )
        del layer_norm_5
        # blocks.2.feed_forward.1 (examples/tied_lm.py:30)
        gelu_2 = aten.gelu.default(linear_10)
        del linear_10
        # blocks.2.feed_forward.2 (examples/tied_lm.py:30)
        linear_11 = aten.linear.default(
            gelu_2, self.blocks[2].feed_forward[2].weight, self.blocks[2].feed_forward[2].bias
        )
        del gelu_2
        # blocks.2 (examples/tied_lm.py:30)
        add_6 = aten.add.Tensor(add_5, linear_11)
        del add_5, linear_11
        # blocks.3.norm1 (examples/tied_lm.py:26)
        layer_norm_6 = aten.layer_norm.default(
            add_6, [256], self.blocks[3].norm1.weight, self.blocks[3].norm1.bias, 1e-05, False
        )
        # blocks.3.query_key_value (examples/tied_lm.py:26)
        linear_12 = aten.linear.default(
            layer_norm_6, self.blocks[3].query_key_value.weight, self.blocks[3].query_key_value.bias
        )
        del layer_norm_6
        # blocks.3 (examples/tied_lm.py:26)
        unflatten_3 = aten.unflatten.int(linear_12, -1, [3, 8, -1])
        del linear_12
        permute_3 = aten.permute.default(unflatten_3, [2, 0, 3, 1, 4])
        del unflatten_3
        getitem_9, getitem_10, getitem_11 = aten.unbind.int(permute_3)
        del permute_3
        scaled_dot_product_attention_3 = aten.scaled_dot_product_attention.default(
            getitem_9, getitem_10, getitem_11, None, 0.0, True
        )
        del getitem_9, getitem_10, getitem_11
        transpose_3 = aten.transpose.int(scaled_dot_product_attention_3, 1, 2)
        del scaled_dot_product_attention_3
        flatten_3 = aten.flatten.using_ints(transpose_3, 2)
        del transpose_3
        # blocks.3.out (examples/tied_lm.py:29)
        linear_13 = aten.linear.default(flatten_3, self.blocks[3].out.weight, self.blocks[3].out.bias)
        del flatten_3
        # blocks.3 (examples/tied_lm.py:29)
        add_7 = aten.add.Tensor(add_6, linear_13)
        del add_6, linear_13
        # blocks.3.norm2 (examples/tied_lm.py:30)
        layer_norm_7 = aten.layer_norm.default(
            add_7, [256], self.blocks[3].norm2.weight, self.blocks[3].norm2.bias, 1e-05, False
        )
        # blocks.3.feed_forward.0 (examples/tied_lm.py:30)
        linear_14 = aten.linear.default(
            layer_norm_7, self.blocks[3].feed_forward[0].weight, self.blocks[3].feed_forward[0].bias
        )
        del layer_norm_7
        # blocks.3.feed_forward.1 (examples/tied_lm.py:30)
        gelu_3 = aten.gelu.default(linear_14)
        del linear_14
        # blocks.3.feed_forward.2 (examples/tied_lm.py:30)
        linear_15 = aten.linear.default(
            gelu_3, self.blocks[3].feed_forward[2].weight, self.blocks[3].feed_forward[2].bias
        )
        del gelu_3
        # blocks.3 (examples/tied_lm.py:30)
        add_8 = aten.add.Tensor(add_7, linear_15)
        del add_7, linear_15
        # blocks.4.norm1 (examples/tied_lm.py:26)
        layer_norm_8 = aten.layer_norm.default(
            add_8, [256], self.blocks[4].norm1.weight, self.blocks[4].norm1.bias, 1e-05, False
        )
        # blocks.4.query_key_value (examples/tied_lm.py:26)
        linear_16 = aten.linear.default(
            layer_norm_8, self.blocks[4].query_key_value.weight, self.blocks[4].query_key_value.bias
        )
        del layer_norm_8
        # blocks.4 (examples/tied_lm.py:26)
        unflatten_4 = aten.unflatten.int(linear_16, -1, [3, 8, -1])
        del linear_16
        permute_4 = aten.permute.default(unflatten_4, [2, 0, 3, 1, 4])
        del unflatten_4
        getitem_12, getitem_13, getitem_14 = aten.unbind.int(permute_4)
        del permute_4
        scaled_dot_product_attention_4 = aten.scaled_dot_product_attention.default(
            getitem_12, getitem_13, getitem_14, None, 0.0, True
        )
        del getitem_12, getitem_13, getitem_14
        return (scaled_dot_product_attention_4, add_8)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
