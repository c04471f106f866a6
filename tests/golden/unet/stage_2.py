"""unet, stage 2 of 4, for cpu.

takes    add_7: float32[batch, 256, 8, 8], from stage 1
takes    unsqueeze_10: float32[batch, 256, 1, 1], from stage 0
takes    add_5: float32[batch, 256, 16, 16], from stage 1
takes    unsqueeze_12: float32[batch, 128, 1, 1], from stage 0
takes    add_3: float32[batch, 128, 32, 32], from stage 1
takes    unsqueeze_14: float32[batch, 64, 1, 1], from stage 0
returns  add_14: float32[batch, 64, 32, 32], to stage 3
holds    34 parameters, 9.3 MiB

Alone:   Stage2.load("stage_2.safetensors", device="cpu")(add_7, unsqueeze_10, add_5, unsqueeze_12, add_3, unsqueeze_14)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "add_7": (1, torch.float32, ("batch", 256, 8, 8)),
    "unsqueeze_10": (0, torch.float32, ("batch", 256, 1, 1)),
    "add_5": (1, torch.float32, ("batch", 256, 16, 16)),
    "unsqueeze_12": (0, torch.float32, ("batch", 128, 1, 1)),
    "add_3": (1, torch.float32, ("batch", 128, 32, 32)),
    "unsqueeze_14": (0, torch.float32, ("batch", 64, 1, 1)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "add_14": ([3], [], torch.float32, ("batch", 64, 32, 32)),
}

# name: (dtype, shape)
PARAMETERS = {
    "middle.1.norm1.weight": (torch.float32, (256,)),
    "middle.1.norm1.bias": (torch.float32, (256,)),
    "middle.1.conv1.weight": (torch.float32, (256, 256, 3, 3)),
    "middle.1.conv1.bias": (torch.float32, (256,)),
    "middle.1.norm2.weight": (torch.float32, (256,)),
    "middle.1.norm2.bias": (torch.float32, (256,)),
    "middle.1.conv2.weight": (torch.float32, (256, 256, 3, 3)),
    "middle.1.conv2.bias": (torch.float32, (256,)),
    "attention.norm.weight": (torch.float32, (256,)),
    "attention.norm.bias": (torch.float32, (256,)),
    "attention.query_key_value.weight": (torch.float32, (768, 256, 1, 1)),
    "attention.query_key_value.bias": (torch.float32, (768,)),
    "attention.out.weight": (torch.float32, (256, 256, 1, 1)),
    "attention.out.bias": (torch.float32, (256,)),
    "up.0.norm1.weight": (torch.float32, (512,)),
    "up.0.norm1.bias": (torch.float32, (512,)),
    "up.0.conv1.weight": (torch.float32, (128, 512, 3, 3)),
    "up.0.conv1.bias": (torch.float32, (128,)),
    "up.0.norm2.weight": (torch.float32, (128,)),
    "up.0.norm2.bias": (torch.float32, (128,)),
    "up.0.conv2.weight": (torch.float32, (128, 128, 3, 3)),
    "up.0.conv2.bias": (torch.float32, (128,)),
    "up.0.skip.weight": (torch.float32, (128, 512, 1, 1)),
    "up.0.skip.bias": (torch.float32, (128,)),
    "up.1.norm1.weight": (torch.float32, (256,)),
    "up.1.norm1.bias": (torch.float32, (256,)),
    "up.1.conv1.weight": (torch.float32, (64, 256, 3, 3)),
    "up.1.conv1.bias": (torch.float32, (64,)),
    "up.1.norm2.weight": (torch.float32, (64,)),
    "up.1.norm2.bias": (torch.float32, (64,)),
    "up.1.conv2.weight": (torch.float32, (64, 64, 3, 3)),
    "up.1.conv2.bias": (torch.float32, (64,)),
    "up.1.skip.weight": (torch.float32, (64, 256, 1, 1)),
    "up.1.skip.bias": (torch.float32, (64,)),
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

    def forward(self, add_7, unsqueeze_10, add_5, unsqueeze_12, add_3, unsqueeze_14):
        # attention.norm (examples/unet.py:54)
        group_norm_8 = aten.group_norm.default(
            add_7, 8, self.attention.norm.weight, self.attention.norm.bias, 1e-05, False
        )
        # attention.query_key_value (examples/unet.py:54)
        conv2d_14 = aten.conv2d.default(
            group_norm_8, self.attention.query_key_value.weight, self.attention.query_key_value.bias
        )
        del group_norm_8
        # attention (examples/unet.py:54)
        flatten = aten.flatten.using_ints(conv2d_14, 2)
        del conv2d_14
        unflatten = aten.unflatten.int(flatten, 1, [3, 4, -1])
        del flatten
        transpose = aten.transpose.int(unflatten, -1, -2)
        del unflatten
        getitem, getitem_1, getitem_2 = aten.unbind.int(transpose, 1)
        del transpose
        scaled_dot_product_attention = aten.scaled_dot_product_attention.default(getitem, getitem_1, getitem_2)
        del getitem, getitem_1, getitem_2
        transpose_1 = aten.transpose.int(scaled_dot_product_attention, -1, -2)
        del scaled_dot_product_attention
        flatten_1 = aten.flatten.using_ints(transpose_1, 1, 2)
        del transpose_1
        unflatten_1 = aten.unflatten.int(flatten_1, -1, [8, 8])
        del flatten_1
        # attention.out (examples/unet.py:57)
        conv2d_15 = aten.conv2d.default(unflatten_1, self.attention.out.weight, self.attention.out.bias)
        del unflatten_1
        # attention (examples/unet.py:57)
        add_8 = aten.add.Tensor(add_7, conv2d_15)
        del add_7, conv2d_15
        # middle.1.norm1 (examples/unet.py:37)
        group_norm_9 = aten.group_norm.default(
            add_8, 8, self.middle[1].norm1.weight, self.middle[1].norm1.bias, 1e-05, False
        )
        # middle.1 (examples/unet.py:37)
        silu_13 = aten.silu.default(group_norm_9)
        del group_norm_9
        # middle.1.conv1 (examples/unet.py:37)
        conv2d_16 = aten.conv2d.default(silu_13, self.middle[1].conv1.weight, self.middle[1].conv1.bias, [1, 1], [1, 1])
        del silu_13
        # middle.1 (examples/unet.py:38)
        add_9 = aten.add.Tensor(conv2d_16, unsqueeze_10)
        del conv2d_16, unsqueeze_10
        # middle.1.norm2 (examples/unet.py:39)
        group_norm_10 = aten.group_norm.default(
            add_9, 8, self.middle[1].norm2.weight, self.middle[1].norm2.bias, 1e-05, False
        )
        del add_9
        # middle.1 (examples/unet.py:39)
        silu_15 = aten.silu.default(group_norm_10)
        del group_norm_10
        # middle.1.conv2 (examples/unet.py:39)
        conv2d_17 = aten.conv2d.default(silu_15, self.middle[1].conv2.weight, self.middle[1].conv2.bias, [1, 1], [1, 1])
        del silu_15
        # middle.1 (examples/unet.py:40)
        add_10 = aten.add.Tensor(conv2d_17, add_8)
        del conv2d_17, add_8
        # the model itself (examples/unet.py:89)
        upsample_nearest2d = aten.upsample_nearest2d.vec(add_10, None, [2.0, 2.0])
        del add_10
        cat_1 = aten.cat.default([upsample_nearest2d, add_5], 1)
        del upsample_nearest2d, add_5
        # up.0.norm1 (examples/unet.py:37)
        group_norm_11 = aten.group_norm.default(cat_1, 8, self.up[0].norm1.weight, self.up[0].norm1.bias, 1e-05, False)
        # up.0 (examples/unet.py:37)
        silu_16 = aten.silu.default(group_norm_11)
        del group_norm_11
        # up.0.conv1 (examples/unet.py:37)
        conv2d_18 = aten.conv2d.default(silu_16, self.up[0].conv1.weight, self.up[0].conv1.bias, [1, 1], [1, 1])
        del silu_16
        # up.0 (examples/unet.py:38)
        add_11 = aten.add.Tensor(conv2d_18, unsqueeze_12)
        del conv2d_18, unsqueeze_12
        # up.0.norm2 (examples/unet.py:39)
        group_norm_12 = aten.group_norm.default(add_11, 8, self.up[0].norm2.weight, self.up[0].norm2.bias, 1e-05, False)
        del add_11
        # up.0 (examples/unet.py:39)
        silu_18 = aten.silu.default(group_norm_12)
        del group_norm_12
        # up.0.conv2 (examples/unet.py:39)
        conv2d_19 = aten.conv2d.default(silu_18, self.up[0].conv2.weight, self.up[0].conv2.bias, [1, 1], [1, 1])
        del silu_18
        # up.0.skip (examples/unet.py:40)
        conv2d_20 = aten.conv2d.default(cat_1, self.up[0].skip.weight, self.up[0].skip.bias)
        del cat_1
        # up.0 (examples/unet.py:40)
        add_12 = aten.add.Tensor(conv2d_19, conv2d_20)
        del conv2d_19, conv2d_20
        # the model itself (examples/unet.py:89)
        upsample_nearest2d_1 = aten.upsample_nearest2d.vec(add_12, None, [2.0, 2.0])
        del add_12
        cat_2 = aten.cat.default([upsample_nearest2d_1, add_3], 1)
        del upsample_nearest2d_1, add_3
        # up.1.norm1 (examples/unet.py:37)
        group_norm_13 = aten.group_norm.default(cat_2, 8, self.up[1].norm1.weight, self.up[1].norm1.bias, 1e-05, False)
        # up.1 (examples/unet.py:37)
        silu_19 = aten.silu.default(group_norm_13)
        del group_norm_13
        # up.1.conv1 (examples/unet.py:37)
        conv2d_21 = aten.conv2d.default(silu_19, self.up[1].conv1.weight, self.up[1].conv1.bias, [1, 1], [1, 1])
        del silu_19
        # up.1 (examples/unet.py:38)
        add_13 = aten.add.Tensor(conv2d_21, unsqueeze_14)
        del conv2d_21, unsqueeze_14
        # up.1.norm2 (examples/unet.py:39)
        group_norm_14 = aten.group_norm.default(add_13, 8, self.up[1].norm2.weight, self.up[1].norm2.bias, 1e-05, False)
        del add_13
        # up.1 (examples/unet.py:39)
        silu_21 = aten.silu.default(group_norm_14)
        del group_norm_14
        # up.1.conv2 (examples/unet.py:39)
        conv2d_22 = aten.conv2d.default(silu_21, self.up[1].conv2.weight, self.up[1].conv2.bias, [1, 1], [1, 1])
        del silu_21
        # up.1.skip (examples/unet.py:40)
        conv2d_23 = aten.conv2d.default(cat_2, self.up[1].skip.weight, self.up[1].skip.bias)
        del cat_2
        # up.1 (examples/unet.py:40)
        add_14 = aten.add.Tensor(conv2d_22, conv2d_23)
        del conv2d_22, conv2d_23
        return (add_14,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
