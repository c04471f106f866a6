"""unet, stage 0 of 4, for cpu.

takes    image: float32[batch, 3, 64, 64], an input of the model
takes    time: int64[batch], an input of the model
returns  silu_6: float32[batch, 128, 32, 32], to stage 1
returns  conv2d_6: float32[batch, 128, 32, 32], to stage 1
returns  unsqueeze_6: float32[batch, 256, 1, 1], to stage 1
returns  unsqueeze_8: float32[batch, 256, 1, 1], to stage 1
returns  unsqueeze_10: float32[batch, 256, 1, 1], to stage 2
returns  unsqueeze_12: float32[batch, 128, 1, 1], to stage 2
returns  unsqueeze_14: float32[batch, 64, 1, 1], to stage 2
returns  add_1: float32[batch, 64, 64, 64], to stage 3
returns  unsqueeze_16: float32[batch, 64, 1, 1], to stage 3
holds    40 parameters, 2.3 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(image, time)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "image": (None, torch.float32, ("batch", 3, 64, 64)),
    "time": (None, torch.int64, ("batch",)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "silu_6": ([1], [], torch.float32, ("batch", 128, 32, 32)),
    "conv2d_6": ([1], [], torch.float32, ("batch", 128, 32, 32)),
    "unsqueeze_6": ([1], [], torch.float32, ("batch", 256, 1, 1)),
    "unsqueeze_8": ([1], [], torch.float32, ("batch", 256, 1, 1)),
    "unsqueeze_10": ([2], [], torch.float32, ("batch", 256, 1, 1)),
    "unsqueeze_12": ([2], [], torch.float32, ("batch", 128, 1, 1)),
    "unsqueeze_14": ([2], [], torch.float32, ("batch", 64, 1, 1)),
    "add_1": ([3], [], torch.float32, ("batch", 64, 64, 64)),
    "unsqueeze_16": ([3], [], torch.float32, ("batch", 64, 1, 1)),
}

# name: (dtype, shape)
PARAMETERS = {
    "embed.0.weight": (torch.float32, (256, 64)),
    "embed.0.bias": (torch.float32, (256,)),
    "embed.2.weight": (torch.float32, (256, 256)),
    "embed.2.bias": (torch.float32, (256,)),
    "first.weight": (torch.float32, (64, 3, 3, 3)),
    "first.bias": (torch.float32, (64,)),
    "down.0.norm1.weight": (torch.float32, (64,)),
    "down.0.norm1.bias": (torch.float32, (64,)),
    "down.0.conv1.weight": (torch.float32, (64, 64, 3, 3)),
    "down.0.conv1.bias": (torch.float32, (64,)),
    "down.0.time.weight": (torch.float32, (64, 256)),
    "down.0.time.bias": (torch.float32, (64,)),
    "down.0.norm2.weight": (torch.float32, (64,)),
    "down.0.norm2.bias": (torch.float32, (64,)),
    "down.0.conv2.weight": (torch.float32, (64, 64, 3, 3)),
    "down.0.conv2.bias": (torch.float32, (64,)),
    "down.1.norm1.weight": (torch.float32, (64,)),
    "down.1.norm1.bias": (torch.float32, (64,)),
    "down.1.conv1.weight": (torch.float32, (128, 64, 3, 3)),
    "down.1.conv1.bias": (torch.float32, (128,)),
    "down.1.time.weight": (torch.float32, (128, 256)),
    "down.1.time.bias": (torch.float32, (128,)),
    "down.1.norm2.weight": (torch.float32, (128,)),
    "down.1.norm2.bias": (torch.float32, (128,)),
    "down.1.skip.weight": (torch.float32, (128, 64, 1, 1)),
    "down.1.skip.bias": (torch.float32, (128,)),
    "down.2.time.weight": (torch.float32, (256, 256)),
    "down.2.time.bias": (torch.float32, (256,)),
    "shrink.0.weight": (torch.float32, (64, 64, 3, 3)),
    "shrink.0.bias": (torch.float32, (64,)),
    "middle.0.time.weight": (torch.float32, (256, 256)),
    "middle.0.time.bias": (torch.float32, (256,)),
    "middle.1.time.weight": (torch.float32, (256, 256)),
    "middle.1.time.bias": (torch.float32, (256,)),
    "up.0.time.weight": (torch.float32, (128, 256)),
    "up.0.time.bias": (torch.float32, (128,)),
    "up.1.time.weight": (torch.float32, (64, 256)),
    "up.1.time.bias": (torch.float32, (64,)),
    "up.2.time.weight": (torch.float32, (64, 256)),
    "up.2.time.bias": (torch.float32, (64,)),
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

    def forward(self, image, time):
        device = image.device
        # the model itself (examples/unet.py:79)
        arange = aten.arange.default(32, device=device)
        mul = aten.mul.Tensor(arange, -9.210340371976184)
        del arange
        div = aten.div.Tensor(mul, 32)
        del mul
        exp = aten.exp.default(div)
        del div
        unsqueeze = aten.unsqueeze.default(time, 1)
        del time
        mul_1 = aten.mul.Tensor(unsqueeze, exp)
        del unsqueeze, exp
        sin = aten.sin.default(mul_1)
        cos = aten.cos.default(mul_1)
        del mul_1
        cat = aten.cat.default([sin, cos], -1)
        del sin, cos
        # embed.0 (examples/unet.py:79)
        linear = aten.linear.default(cat, self.embed[0].weight, self.embed[0].bias)
        del cat
        # embed.1 (examples/unet.py:79)
        silu = aten.silu.default(linear)
        del linear
        # embed.2 (examples/unet.py:79)
        linear_1 = aten.linear.default(silu, self.embed[2].weight, self.embed[2].bias)
        del silu
        # first (examples/unet.py:80)
        conv2d = aten.conv2d.default(image, self.first.weight, self.first.bias, [1, 1], [1, 1])
        del image
        # down.0.norm1 (examples/unet.py:37)
        group_norm = aten.group_norm.default(
            conv2d, 8, self.down[0].norm1.weight, self.down[0].norm1.bias, 1e-05, False
        )
        # down.0 (examples/unet.py:37)
        silu_1 = aten.silu.default(group_norm)
        del group_norm
        # down.0.conv1 (examples/unet.py:37)
        conv2d_1 = aten.conv2d.default(silu_1, self.down[0].conv1.weight, self.down[0].conv1.bias, [1, 1], [1, 1])
        del silu_1
        # down.0 (examples/unet.py:38)
        silu_2 = aten.silu.default(linear_1)
        # down.0.time (examples/unet.py:38)
        linear_2 = aten.linear.default(silu_2, self.down[0].time.weight, self.down[0].time.bias)
        del silu_2
        # down.0 (examples/unet.py:38)
        unsqueeze_1 = aten.unsqueeze.default(linear_2, 2)
        del linear_2
        unsqueeze_2 = aten.unsqueeze.default(unsqueeze_1, 3)
        del unsqueeze_1
        add = aten.add.Tensor(conv2d_1, unsqueeze_2)
        del conv2d_1, unsqueeze_2
        # down.0.norm2 (examples/unet.py:39)
        group_norm_1 = aten.group_norm.default(add, 8, self.down[0].norm2.weight, self.down[0].norm2.bias, 1e-05, False)
        del add
        # down.0 (examples/unet.py:39)
        silu_3 = aten.silu.default(group_norm_1)
        del group_norm_1
        # down.0.conv2 (examples/unet.py:39)
        conv2d_2 = aten.conv2d.default(silu_3, self.down[0].conv2.weight, self.down[0].conv2.bias, [1, 1], [1, 1])
        del silu_3
        # down.0 (examples/unet.py:40)
        add_1 = aten.add.Tensor(conv2d_2, conv2d)
        del conv2d_2, conv2d
        # shrink.0 (examples/unet.py:85)
        conv2d_3 = aten.conv2d.default(add_1, self.shrink[0].weight, self.shrink[0].bias, [2, 2], [1, 1])
        # down.1.norm1 (examples/unet.py:37)
        group_norm_2 = aten.group_norm.default(
            conv2d_3, 8, self.down[1].norm1.weight, self.down[1].norm1.bias, 1e-05, False
        )
        # down.1 (examples/unet.py:37)
        silu_4 = aten.silu.default(group_norm_2)
        del group_norm_2
        # down.1.conv1 (examples/unet.py:37)
        conv2d_4 = aten.conv2d.default(silu_4, self.down[1].conv1.weight, self.down[1].conv1.bias, [1, 1], [1, 1])
        del silu_4
        # down.1 (examples/unet.py:38)
        silu_5 = aten.silu.default(linear_1)
        # down.1.time (examples/unet.py:38)
        linear_3 = aten.linear.default(silu_5, self.down[1].time.weight, self.down[1].time.bias)
        del silu_5
        # down.1 (examples/unet.py:38)
        unsqueeze_3 = aten.unsqueeze.default(linear_3, 2)
        del linear_3
        unsqueeze_4 = aten.unsqueeze.default(unsqueeze_3, 3)
        del unsqueeze_3
        add_2 = aten.add.Tensor(conv2d_4, unsqueeze_4)
        del conv2d_4, unsqueeze_4
        # down.1.norm2 (examples/unet.py:39)
        group_norm_3 = aten.group_norm.default(
            add_2, 8, self.down[1].norm2.weight, self.down[1].norm2.bias, 1e-05, False
        )
        del add_2
        # down.1 (examples/unet.py:39)
        silu_6 = aten.silu.default(group_norm_3)
        del group_norm_3
        # down.1.skip (examples/unet.py:40)
        conv2d_6 = aten.conv2d.default(conv2d_3, self.down[1].skip.weight, self.down[1].skip.bias)
        del conv2d_3
        # down.2 (examples/unet.py:38)
        silu_8 = aten.silu.default(linear_1)
        # down.2.time (examples/unet.py:38)
        linear_4 = aten.linear.default(silu_8, self.down[2].time.weight, self.down[2].time.bias)
        del silu_8
        # down.2 (examples/unet.py:38)
        unsqueeze_5 = aten.unsqueeze.default(linear_4, 2)
        del linear_4
        unsqueeze_6 = aten.unsqueeze.default(unsqueeze_5, 3)
        del unsqueeze_5
        # middle.0 (examples/unet.py:38)
        silu_11 = aten.silu.default(linear_1)
        # middle.0.time (examples/unet.py:38)
        linear_5 = aten.linear.default(silu_11, self.middle[0].time.weight, self.middle[0].time.bias)
        del silu_11
        # middle.0 (examples/unet.py:38)
        unsqueeze_7 = aten.unsqueeze.default(linear_5, 2)
        del linear_5
        unsqueeze_8 = aten.unsqueeze.default(unsqueeze_7, 3)
        del unsqueeze_7
        # middle.1 (examples/unet.py:38)
        silu_14 = aten.silu.default(linear_1)
        # middle.1.time (examples/unet.py:38)
        linear_6 = aten.linear.default(silu_14, self.middle[1].time.weight, self.middle[1].time.bias)
        del silu_14
        # middle.1 (examples/unet.py:38)
        unsqueeze_9 = aten.unsqueeze.default(linear_6, 2)
        del linear_6
        unsqueeze_10 = aten.unsqueeze.default(unsqueeze_9, 3)
        del unsqueeze_9
        # up.0 (examples/unet.py:38)
        silu_17 = aten.silu.default(linear_1)
        # up.0.time (examples/unet.py:38)
        linear_7 = aten.linear.default(silu_17, self.up[0].time.weight, self.up[0].time.bias)
        del silu_17
        # up.0 (examples/unet.py:38)
        unsqueeze_11 = aten.unsqueeze.default(linear_7, 2)
        del linear_7
        unsqueeze_12 = aten.unsqueeze.default(unsqueeze_11, 3)
        del unsqueeze_11
        # up.1 (examples/unet.py:38)
        silu_20 = aten.silu.default(linear_1)
        # up.1.time (examples/unet.py:38)
        linear_8 = aten.linear.default(silu_20, self.up[1].time.weight, self.up[1].time.bias)
        del silu_20
        # up.1 (examples/unet.py:38)
        unsqueeze_13 = aten.unsqueeze.default(linear_8, 2)
        del linear_8
        unsqueeze_14 = aten.unsqueeze.default(unsqueeze_13, 3)
        del unsqueeze_13
        # up.2 (examples/unet.py:38)
        silu_23 = aten.silu.default(linear_1)
        del linear_1
        # up.2.time (examples/unet.py:38)
        linear_9 = aten.linear.default(silu_23, self.up[2].time.weight, self.up[2].time.bias)
        del silu_23
        # up.2 (examples/unet.py:38)
        unsqueeze_15 = aten.unsqueeze.default(linear_9, 2)
        del linear_9
        unsqueeze_16 = aten.unsqueeze.default(unsqueeze_15, 3)
        del unsqueeze_15
        return (
            silu_6,
            conv2d_6,
            unsqueeze_6,
            unsqueeze_8,
            unsqueeze_10,
            unsqueeze_12,
            unsqueeze_14,
            add_1,
            unsqueeze_16,
        )

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
