"""unet, stage 1 of 4, for cpu.

takes    silu_6: float32[batch, 128, 32, 32], from stage 0
takes    conv2d_6: float32[batch, 128, 32, 32], from stage 0
takes    unsqueeze_6: float32[batch, 256, 1, 1], from stage 0
takes    unsqueeze_8: float32[batch, 256, 1, 1], from stage 0
returns  add_7: float32[batch, 256, 8, 8], to stage 2
returns  add_5: float32[batch, 256, 16, 16], to stage 2
returns  add_3: float32[batch, 128, 32, 32], to stage 2
holds    24 parameters, 11.4 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(silu_6, conv2d_6, unsqueeze_6, unsqueeze_8)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "silu_6": (0, torch.float32, ("batch", 128, 32, 32)),
    "conv2d_6": (0, torch.float32, ("batch", 128, 32, 32)),
    "unsqueeze_6": (0, torch.float32, ("batch", 256, 1, 1)),
    "unsqueeze_8": (0, torch.float32, ("batch", 256, 1, 1)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "add_7": ([2], [], torch.float32, ("batch", 256, 8, 8)),
    "add_5": ([2], [], torch.float32, ("batch", 256, 16, 16)),
    "add_3": ([2], [], torch.float32, ("batch", 128, 32, 32)),
}

# name: (dtype, shape)
PARAMETERS = {
    "down.1.conv2.weight": (torch.float32, (128, 128, 3, 3)),
    "down.1.conv2.bias": (torch.float32, (128,)),
    "down.2.norm1.weight": (torch.float32, (128,)),
    "down.2.norm1.bias": (torch.float32, (128,)),
    "down.2.conv1.weight": (torch.float32, (256, 128, 3, 3)),
    "down.2.conv1.bias": (torch.float32, (256,)),
    "down.2.norm2.weight": (torch.float32, (256,)),
    "down.2.norm2.bias": (torch.float32, (256,)),
    "down.2.conv2.weight": (torch.float32, (256, 256, 3, 3)),
    "down.2.conv2.bias": (torch.float32, (256,)),
    "down.2.skip.weight": (torch.float32, (256, 128, 1, 1)),
    "down.2.skip.bias": (torch.float32, (256,)),
    "shrink.1.weight": (torch.float32, (128, 128, 3, 3)),
    "shrink.1.bias": (torch.float32, (128,)),
    "shrink.2.weight": (torch.float32, (256, 256, 3, 3)),
    "shrink.2.bias": (torch.float32, (256,)),
    "middle.0.norm1.weight": (torch.float32, (256,)),
    "middle.0.norm1.bias": (torch.float32, (256,)),
    "middle.0.conv1.weight": (torch.float32, (256, 256, 3, 3)),
    "middle.0.conv1.bias": (torch.float32, (256,)),
    "middle.0.norm2.weight": (torch.float32, (256,)),
    "middle.0.norm2.bias": (torch.float32, (256,)),
    "middle.0.conv2.weight": (torch.float32, (256, 256, 3, 3)),
    "middle.0.conv2.bias": (torch.float32, (256,)),
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

    def forward(self, silu_6, conv2d_6, unsqueeze_6, unsqueeze_8):
        # down.1.conv2 (examples/unet.py:39)
        conv2d_5 = aten.conv2d.default(silu_6, self.down[1].conv2.weight, self.down[1].conv2.bias, [1, 1], [1, 1])
        del silu_6
        # down.1 (examples/unet.py:40)
        add_3 = aten.add.Tensor(conv2d_5, conv2d_6)
        del conv2d_5, conv2d_6
        # shrink.1 (examples/unet.py:85)
        conv2d_7 = aten.conv2d.default(add_3, self.shrink[1].weight, self.shrink[1].bias, [2, 2], [1, 1])
        # down.2.norm1 (examples/unet.py:37)
        group_norm_4 = aten.group_norm.default(
            conv2d_7, 8, self.down[2].norm1.weight, self.down[2].norm1.bias, 1e-05, False
        )
        # down.2 (examples/unet.py:37)
        silu_7 = aten.silu.default(group_norm_4)
        del group_norm_4
        # down.2.conv1 (examples/unet.py:37)
        conv2d_8 = aten.conv2d.default(silu_7, self.down[2].conv1.weight, self.down[2].conv1.bias, [1, 1], [1, 1])
        del silu_7
        # down.2 (examples/unet.py:38)
        add_4 = aten.add.Tensor(conv2d_8, unsqueeze_6)
        del conv2d_8, unsqueeze_6
        # down.2.norm2 (examples/unet.py:39)
        group_norm_5 = aten.group_norm.default(
            add_4, 8, self.down[2].norm2.weight, self.down[2].norm2.bias, 1e-05, False
        )
        del add_4
        # down.2 (examples/unet.py:39)
        silu_9 = aten.silu.default(group_norm_5)
        del group_norm_5
        # down.2.conv2 (examples/unet.py:39)
        conv2d_9 = aten.conv2d.default(silu_9, self.down[2].conv2.weight, self.down[2].conv2.bias, [1, 1], [1, 1])
        del silu_9
        # down.2.skip (examples/unet.py:40)
        conv2d_10 = aten.conv2d.default(conv2d_7, self.down[2].skip.weight, self.down[2].skip.bias)
        del conv2d_7
        # down.2 (examples/unet.py:40)
        add_5 = aten.add.Tensor(conv2d_9, conv2d_10)
        del conv2d_9, conv2d_10
        # shrink.2 (examples/unet.py:85)
        conv2d_11 = aten.conv2d.default(add_5, self.shrink[2].weight, self.shrink[2].bias, [2, 2], [1, 1])
        # middle.0.norm1 (examples/unet.py:37)
        group_norm_6 = aten.group_norm.default(
            conv2d_11, 8, self.middle[0].norm1.weight, self.middle[0].norm1.bias, 1e-05, False
        )
        # middle.0 (examples/unet.py:37)
        silu_10 = aten.silu.default(group_norm_6)
        del group_norm_6
        # middle.0.conv1 (examples/unet.py:37)
        conv2d_12 = aten.conv2d.default(silu_10, self.middle[0].conv1.weight, self.middle[0].conv1.bias, [1, 1], [1, 1])
        del silu_10
        # middle.0 (examples/unet.py:38)
        add_6 = aten.add.Tensor(conv2d_12, unsqueeze_8)
        del conv2d_12, unsqueeze_8
        # middle.0.norm2 (examples/unet.py:39)
        group_norm_7 = aten.group_norm.default(
            add_6, 8, self.middle[0].norm2.weight, self.middle[0].norm2.bias, 1e-05, False
        )
        del add_6
        # middle.0 (examples/unet.py:39)
        silu_12 = aten.silu.default(group_norm_7)
        del group_norm_7
        # middle.0.conv2 (examples/unet.py:39)
        conv2d_13 = aten.conv2d.default(silu_12, self.middle[0].conv2.weight, self.middle[0].conv2.bias, [1, 1], [1, 1])
        del silu_12
        # middle.0 (examples/unet.py:40)
        add_7 = aten.add.Tensor(conv2d_13, conv2d_11)
        del conv2d_13, conv2d_11
        return (add_7, add_5, add_3)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
