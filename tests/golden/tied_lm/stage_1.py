"""tied_lm, stage 1 of 2, for cpu.

takes    scaled_dot_product_attention_4: float32[batch, 8, seq, 32], from stage 0
takes    add_8: float32[batch, seq, 256], from stage 0
returns  linear_24: float32[batch, seq, 8000], to output 0 of the model
holds    23 parameters, 13.1 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(scaled_dot_product_attention_4, add_8)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "scaled_dot_product_attention_4": (0, torch.float32, ("batch", 8, "seq", 32)),
    "add_8": (0, torch.float32, ("batch", "seq", 256)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear_24": ([], [0], torch.float32, ("batch", "seq", 8000)),
}

# name: (dtype, shape)
PARAMETERS = {
    "head.weight": (torch.float32, (8000, 256)),
    "blocks.4.out.weight": (torch.float32, (256, 256)),
    "blocks.4.out.bias": (torch.float32, (256,)),
    "blocks.4.norm2.weight": (torch.float32, (256,)),
    "blocks.4.norm2.bias": (torch.float32, (256,)),
    "blocks.4.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.4.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.4.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.4.feed_forward.2.bias": (torch.float32, (256,)),
    "blocks.5.norm1.weight": (torch.float32, (256,)),
    "blocks.5.norm1.bias": (torch.float32, (256,)),
    "blocks.5.query_key_value.weight": (torch.float32, (768, 256)),
    "blocks.5.query_key_value.bias": (torch.float32, (768,)),
    "blocks.5.out.weight": (torch.float32, (256, 256)),
    "blocks.5.out.bias": (torch.float32, (256,)),
    "blocks.5.norm2.weight": (torch.float32, (256,)),
    "blocks.5.norm2.bias": (torch.float32, (256,)),
    "blocks.5.feed_forward.0.weight": (torch.float32, (1024, 256)),
    "blocks.5.feed_forward.0.bias": (torch.float32, (1024,)),
    "blocks.5.feed_forward.2.weight": (torch.float32, (256, 1024)),
    "blocks.5.feed_forward.2.bias": (torch.float32, (256,)),
    "norm.weight": (torch.float32, (256,)),
    "norm.bias": (torch.float32, (256,)),
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

    def forward(self, scaled_dot_product_attention_4, add_8):
        # blocks.4 (examples/tied_lm.py:29)
        transpose_4 = aten.transpose.int(scaled_dot_product_attention_4, 1, 2)
        del scaled_dot_product_attention_4
        flatten_4 = aten.flatten.using_ints(transpose_4, 2)
        del transpose_4
        # blocks.4.out (examples/tied_lm.py:29)
        linear_17 = aten.linear.default(flatten_4, self.blocks[4].out.weight, self.blocks[4].out.bias)
        del flatten_4
        # blocks.4 (examples/tied_lm.py:29)
        add_9 = aten.add.Tensor(add_8, linear_17)
        del add_8, linear_17
        # blocks.4.norm2 (examples/tied_lm.py:30)
        layer_norm_9 = aten.layer_norm.default(
            add_9, [256], self.blocks[4].norm2.weight, self.blocks[4].norm2.bias, 1e-05, False
        )
        # blocks.4.feed_forward.0 (examples/tied_lm.py:30)
        linear_18 = aten.linear.default(
            layer_norm_9, self.blocks[4].feed_forward[0].weight, self.blocks[4].feed_forward[0].bias
        )
        del layer_norm_9
        # blocks.4.feed_forward.1 (examples/tied_lm.py:30)
        gelu_4 = aten.gelu.default(linear_18)
        del linear_18
        # blocks.4.feed_forward.2 (examples/tied_lm.py:30)
        linear_19 = aten.linear.default(
            gelu_4, self.blocks[4].feed_forward[2].weight, self.blocks[4].feed_forward[2].bias
        )
        del gelu_4
        # blocks.4 (examples/tied_lm.py:30)
        add_10 = aten.add.Tensor(add_9, linear_19)
        del add_9, linear_19
        # blocks.5.norm1 (examples/tied_lm.py:26)
        layer_norm_10 = aten.layer_norm.default(
            add_10, [256], self.blocks[5].norm1.weight, self.blocks[5].norm1.bias, 1e-05, False
        )
        # blocks.5.query_key_value (examples/tied_lm.py:26)
        linear_20 = aten.linear.default(
            layer_norm_10, self.blocks[5].query_key_value.weight, self.blocks[5].query_key_value.bias
        )
        del layer_norm_10
        # blocks.5 (examples/tied_lm.py:26)
        unflatten_5 = aten.unflatten.int(linear_20, -1, [3, 8, -1])
        del linear_20
        permute_5 = aten.permute.default(unflatten_5, [2, 0, 3, 1, 4])
        del unflatten_5
        getitem_15, getitem_16, getitem_17 = aten.unbind.int(permute_5)
        del permute_5
        scaled_dot_product_attention_5 = aten.scaled_dot_product_attention.default(
            getitem_15, getitem_16, getitem_17, None, 0.0, True
        )
        del getitem_15, getitem_16, getitem_17
        transpose_5 = aten.transpose.int(scaled_dot_product_attention_5, 1, 2)
        del scaled_dot_product_attention_5
        flatten_5 = aten.flatten.using_ints(transpose_5, 2)
        del transpose_5
        # blocks.5.out (examples/tied_lm.py:29)
        linear_21 = aten.linear.default(flatten_5, self.blocks[5].out.weight, self.blocks[5].out.bias)
        del flatten_5
        # blocks.5 (examples/tied_lm.py:29)
        add_11 = aten.add.Tensor(add_10, linear_21)
        del add_10, linear_21
        # blocks.5.norm2 (examples/tied_lm.py:30)
        layer_norm_11 = aten.layer_norm.default(
            add_11, [256], self.blocks[5].norm2.weight, self.blocks[5].norm2.bias, 1e-05, False
        )
        # blocks.5.feed_forward.0 (examples/tied_lm.py:30)
        linear_22 = aten.linear.default(
            layer_norm_11, self.blocks[5].feed_forward[0].weight, self.blocks[5].feed_forward[0].bias
        )
        del layer_norm_11
        # blocks.5.feed_forward.1 (examples/tied_lm.py:30)
        gelu_5 = aten.gelu.default(linear_22)
        del linear_22
        # blocks.5.feed_forward.2 (examples/tied_lm.py:30)
        linear_23 = aten.linear.default(
            gelu_5, self.blocks[5].feed_forward[2].weight, self.blocks[5].feed_forward[2].bias
        )
        del gelu_5
        # blocks.5 (examples/tied_lm.py:30)
        add_12 = aten.add.Tensor(add_11, linear_23)
        del add_11, linear_23
        # norm (examples/tied_lm.py:50)
        layer_norm_12 = aten.layer_norm.default(add_12, [256], self.norm.weight, self.norm.bias, 1e-05, False)
        del add_12
        # head (examples/tied_lm.py:50)
        linear_24 = aten.linear.default(layer_norm_12, self.head.weight)
        del layer_norm_12
        return (linear_24,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
