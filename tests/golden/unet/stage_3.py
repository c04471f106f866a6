"""unet, stage 3 of 4, for cpu.

takes    add_14: float32[batch, 64, 32, 32], from stage 2
takes    add_1: float32[batch, 64, 64, 64], from stage 0
takes    unsqueeze_16: float32[batch, 64, 1, 1], from stage 0
returns  conv2d_27: float32[batch, 3, 64, 64], to output 0 of the model
holds    14 parameters, 473.5 KiB

Alone:   Stage3.load("stage_3.safetensors", device="cpu")(add_14, add_1, unsqueeze_16)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "add_14": (2, torch.float32, ("batch", 64, 32, 32)),
    "add_1": (0, torch.float32, ("batch", 64, 64, 64)),
    "unsqueeze_16": (0, torch.float32, ("batch", 64, 1, 1)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "conv2d_27": ([], [0], torch.float32, ("batch", 3, 64, 64)),
}

# name: (dtype, shape)
PARAMETERS = {
    "up.2.norm1.weight": (torch.float32, (128,)),
    "up.2.norm1.bias": (torch.float32, (128,)),
    "up.2.conv1.weight": (torch.float32, (64, 128, 3, 3)),
    "up.2.conv1.bias": (torch.float32, (64,)),
    "up.2.norm2.weight": (torch.float32, (64,)),
    "up.2.norm2.bias": (torch.float32, (64,)),
    "up.2.conv2.weight": (torch.float32, (64, 64, 3, 3)),
    "up.2.conv2.bias": (torch.float32, (64,)),
    "up.2.skip.weight": (torch.float32, (64, 128, 1, 1)),
    "up.2.skip.bias": (torch.float32, (64,)),
    "norm.weight": (torch.float32, (64,)),
    "norm.bias": (torch.float32, (64,)),
    "last.weight": (torch.float32, (3, 64, 3, 3)),
    "last.bias": (torch.float32, (3,)),
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


class Stage3(Block):
    def __init__(self):
        super().__init__()
        for name, (dtype, shape) in PARAMETERS.items():
            place(self, name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=dtype.is_floating_point))

    def forward(self, add_14, add_1, unsqueeze_16):
        # the model itself (examples/unet.py:89)
        upsample_nearest2d_2 = aten.upsample_nearest2d.vec(add_14, None, [2.0, 2.0])
        del add_14
        cat_3 = aten.cat.default([upsample_nearest2d_2, add_1], 1)
        del upsample_nearest2d_2, add_1
        # up.2.norm1 (examples/unet.py:37)
        group_norm_15 = aten.group_norm.default(cat_3, 8, self.up[2].norm1.weight, self.up[2].norm1.bias, 1e-05, False)
        # up.2 (examples/unet.py:37)
        silu_22 = aten.silu.default(group_norm_15)
        del group_norm_15
        # up.2.conv1 (examples/unet.py:37)
        conv2d_24 = aten.conv2d.default(silu_22, self.up[2].conv1.weight, self.up[2].conv1.bias, [1, 1], [1, 1])
        del silu_22
        # up.2 (examples/unet.py:38)
        add_15 = aten.add.Tensor(conv2d_24, unsqueeze_16)
        del conv2d_24, unsqueeze_16
        # up.2.norm2 (examples/unet.py:39)
        group_norm_16 = aten.group_norm.default(add_15, 8, self.up[2].norm2.weight, self.up[2].norm2.bias, 1e-05, False)
        del add_15
        # up.2 (examples/unet.py:39)
        silu_24 = aten.silu.default(group_norm_16)
        del group_norm_16
        # up.2.conv2 (examples/unet.py:39)
        conv2d_25 = aten.conv2d.default(silu_24, self.up[2].conv2.weight, self.up[2].conv2.bias, [1, 1], [1, 1])
        del silu_24
        # up.2.skip (examples/unet.py:40)
        conv2d_26 = aten.conv2d.default(cat_3, self.up[2].skip.weight, self.up[2].skip.bias)
        del cat_3
        # up.2 (examples/unet.py:40)
        add_16 = aten.add.Tensor(conv2d_25, conv2d_26)
        del conv2d_25, conv2d_26
        # norm (examples/unet.py:91)
        group_norm_17 = aten.group_norm.default(add_16, 8, self.norm.weight, self.norm.bias, 1e-05, False)
        del add_16
        # the model itself (examples/unet.py:91)
        silu_25 = aten.silu.default(group_norm_17)
        del group_norm_17
        # last (examples/unet.py:91)
        conv2d_27 = aten.conv2d.default(silu_25, self.last.weight, self.last.bias, [1, 1], [1, 1])
        del silu_25
        return (conv2d_27,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
