"""resnet50, stage 0 of 3, for cpu.

takes    pixel_values: float32[batch, 3, 224, 224], an input of the model
returns  relu_13: float32[batch, 128, 28, 28], to stage 1
returns  relu_12: float32[batch, 512, 28, 28], to stage 1
holds    80 parameters, 2.6 MiB

Alone:   Stage0.load("stage_0.safetensors", device="cpu")(pixel_values)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "pixel_values": (None, torch.float32, ("batch", 3, 224, 224)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "relu_13": ([1], [], torch.float32, ("batch", 128, 28, 28)),
    "relu_12": ([1], [], torch.float32, ("batch", 512, 28, 28)),
}

# name: (dtype, shape)
PARAMETERS = {
    "resnet.embedder.embedder.convolution.weight": (torch.float32, (64, 3, 7, 7)),
    "resnet.embedder.embedder.normalization.weight": (torch.float32, (64,)),
    "resnet.embedder.embedder.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight": (torch.float32, (256, 64, 1, 1)),
    "resnet.encoder.stages.0.layers.0.shortcut.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.shortcut.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": (torch.float32, (64, 64, 1, 1)),
    "resnet.encoder.stages.0.layers.0.layer.0.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.0.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight": (torch.float32, (64, 64, 3, 3)),
    "resnet.encoder.stages.0.layers.0.layer.1.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.1.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.2.convolution.weight": (torch.float32, (256, 64, 1, 1)),
    "resnet.encoder.stages.0.layers.0.layer.2.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.layer.2.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.1.layer.0.convolution.weight": (torch.float32, (64, 256, 1, 1)),
    "resnet.encoder.stages.0.layers.1.layer.0.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.0.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.1.convolution.weight": (torch.float32, (64, 64, 3, 3)),
    "resnet.encoder.stages.0.layers.1.layer.1.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.1.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.2.convolution.weight": (torch.float32, (256, 64, 1, 1)),
    "resnet.encoder.stages.0.layers.1.layer.2.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.1.layer.2.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.2.layer.0.convolution.weight": (torch.float32, (64, 256, 1, 1)),
    "resnet.encoder.stages.0.layers.2.layer.0.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.0.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.1.convolution.weight": (torch.float32, (64, 64, 3, 3)),
    "resnet.encoder.stages.0.layers.2.layer.1.normalization.weight": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.1.normalization.bias": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.2.convolution.weight": (torch.float32, (256, 64, 1, 1)),
    "resnet.encoder.stages.0.layers.2.layer.2.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.2.layer.2.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight": (torch.float32, (512, 256, 1, 1)),
    "resnet.encoder.stages.1.layers.0.shortcut.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight": (torch.float32, (128, 256, 1, 1)),
    "resnet.encoder.stages.1.layers.0.layer.0.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.0.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.1.convolution.weight": (torch.float32, (128, 128, 3, 3)),
    "resnet.encoder.stages.1.layers.0.layer.1.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.1.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.2.convolution.weight": (torch.float32, (512, 128, 1, 1)),
    "resnet.encoder.stages.1.layers.0.layer.2.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.layer.2.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.1.layer.0.convolution.weight": (torch.float32, (128, 512, 1, 1)),
    "resnet.encoder.stages.1.layers.1.layer.0.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.0.normalization.bias": (torch.float32, (128,)),
}

# name: (dtype, shape), from the checkpoint as well
BUFFERS = {
    "resnet.embedder.embedder.normalization.running_mean": (torch.float32, (64,)),
    "resnet.embedder.embedder.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.shortcut.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.shortcut.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.layer.0.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.0.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.1.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.1.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.0.layer.2.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.0.layer.2.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.1.layer.0.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.0.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.1.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.1.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.1.layer.2.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.1.layer.2.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.2.layer.0.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.0.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.1.normalization.running_mean": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.1.normalization.running_var": (torch.float32, (64,)),
    "resnet.encoder.stages.0.layers.2.layer.2.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.0.layers.2.layer.2.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.shortcut.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.layer.0.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.0.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.1.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.1.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.0.layer.2.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.0.layer.2.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.1.layer.0.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.0.normalization.running_var": (torch.float32, (128,)),
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
        for name, (dtype, shape) in BUFFERS.items():
            place(self, name, torch.empty(shape, dtype=dtype))

    def forward(self, pixel_values):
        # resnet.embedder.embedder.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d = aten.conv2d.default(
            pixel_values, self.resnet.embedder.embedder.convolution.weight, None, [2, 2], [3, 3]
        )
        del pixel_values
        # resnet.embedder.embedder.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm = aten.batch_norm.default(
            conv2d,
            self.resnet.embedder.embedder.normalization.weight,
            self.resnet.embedder.embedder.normalization.bias,
            self.resnet.embedder.embedder.normalization.running_mean,
            self.resnet.embedder.embedder.normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d
        # resnet.embedder.embedder.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu = aten.relu.default(batch_norm)
        del batch_norm
        # resnet.embedder.pooler (transformers/models/resnet/modeling_resnet.py:92)
        max_pool2d = aten.max_pool2d.default(relu, [3, 3], [2, 2], [1, 1])
        del relu
        # resnet.encoder.stages.0.layers.0.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_1 = aten.conv2d.default(max_pool2d, self.resnet.encoder.stages[0].layers[0].layer[0].convolution.weight)
        # resnet.encoder.stages.0.layers.0.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_1 = aten.batch_norm.default(
            conv2d_1,
            self.resnet.encoder.stages[0].layers[0].layer[0].normalization.weight,
            self.resnet.encoder.stages[0].layers[0].layer[0].normalization.bias,
            self.resnet.encoder.stages[0].layers[0].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[0].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_1
        # resnet.encoder.stages.0.layers.0.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_1 = aten.relu.default(batch_norm_1)
        del batch_norm_1
        # resnet.encoder.stages.0.layers.0.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_2 = aten.conv2d.default(
            relu_1, self.resnet.encoder.stages[0].layers[0].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_1
        # resnet.encoder.stages.0.layers.0.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_2 = aten.batch_norm.default(
            conv2d_2,
            self.resnet.encoder.stages[0].layers[0].layer[1].normalization.weight,
            self.resnet.encoder.stages[0].layers[0].layer[1].normalization.bias,
            self.resnet.encoder.stages[0].layers[0].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[0].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_2
        # resnet.encoder.stages.0.layers.0.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_2 = aten.relu.default(batch_norm_2)
        del batch_norm_2
        # resnet.encoder.stages.0.layers.0.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_3 = aten.conv2d.default(relu_2, self.resnet.encoder.stages[0].layers[0].layer[2].convolution.weight)
        del relu_2
        # resnet.encoder.stages.0.layers.0.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_3 = aten.batch_norm.default(
            conv2d_3,
            self.resnet.encoder.stages[0].layers[0].layer[2].normalization.weight,
            self.resnet.encoder.stages[0].layers[0].layer[2].normalization.bias,
            self.resnet.encoder.stages[0].layers[0].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[0].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_3
        # resnet.encoder.stages.0.layers.0.shortcut.convolution (transformers/models/resnet/modeling_resnet.py:108)
        conv2d_4 = aten.conv2d.default(max_pool2d, self.resnet.encoder.stages[0].layers[0].shortcut.convolution.weight)
        del max_pool2d
        # resnet.encoder.stages.0.layers.0.shortcut.normalization (transformers/models/resnet/modeling_resnet.py:109)
        batch_norm_4 = aten.batch_norm.default(
            conv2d_4,
            self.resnet.encoder.stages[0].layers[0].shortcut.normalization.weight,
            self.resnet.encoder.stages[0].layers[0].shortcut.normalization.bias,
            self.resnet.encoder.stages[0].layers[0].shortcut.normalization.running_mean,
            self.resnet.encoder.stages[0].layers[0].shortcut.normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_4
        # resnet.encoder.stages.0.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        add_ = aten.add.Tensor(batch_norm_3, batch_norm_4)
        del batch_norm_3, batch_norm_4
        # resnet.encoder.stages.0.layers.0.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_3 = aten.relu.default(add_)
        del add_
        # resnet.encoder.stages.0.layers.1.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_5 = aten.conv2d.default(relu_3, self.resnet.encoder.stages[0].layers[1].layer[0].convolution.weight)
        # resnet.encoder.stages.0.layers.1.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_5 = aten.batch_norm.default(
            conv2d_5,
            self.resnet.encoder.stages[0].layers[1].layer[0].normalization.weight,
            self.resnet.encoder.stages[0].layers[1].layer[0].normalization.bias,
            self.resnet.encoder.stages[0].layers[1].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[1].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_5
        # resnet.encoder.stages.0.layers.1.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_4 = aten.relu.default(batch_norm_5)
        del batch_norm_5
        # resnet.encoder.stages.0.layers.1.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_6 = aten.conv2d.default(
            relu_4, self.resnet.encoder.stages[0].layers[1].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_4
        # resnet.encoder.stages.0.layers.1.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_6 = aten.batch_norm.default(
            conv2d_6,
            self.resnet.encoder.stages[0].layers[1].layer[1].normalization.weight,
            self.resnet.encoder.stages[0].layers[1].layer[1].normalization.bias,
            self.resnet.encoder.stages[0].layers[1].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[1].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_6
        # resnet.encoder.stages.0.layers.1.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_5 = aten.relu.default(batch_norm_6)
        del batch_norm_6
        # resnet.encoder.stages.0.layers.1.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_7 = aten.conv2d.default(relu_5, self.resnet.encoder.stages[0].layers[1].layer[2].convolution.weight)
        del relu_5
        # resnet.encoder.stages.0.layers.1.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_7 = aten.batch_norm.default(
            conv2d_7,
            self.resnet.encoder.stages[0].layers[1].layer[2].normalization.weight,
            self.resnet.encoder.stages[0].layers[1].layer[2].normalization.bias,
            self.resnet.encoder.stages[0].layers[1].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[1].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_7
        # resnet.encoder.stages.0.layers.1 (transformers/models/resnet/modeling_resnet.py:176)
        add__1 = aten.add.Tensor(batch_norm_7, relu_3)
        del batch_norm_7, relu_3
        # resnet.encoder.stages.0.layers.1.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_6 = aten.relu.default(add__1)
        del add__1
        # resnet.encoder.stages.0.layers.2.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_8 = aten.conv2d.default(relu_6, self.resnet.encoder.stages[0].layers[2].layer[0].convolution.weight)
        # resnet.encoder.stages.0.layers.2.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_8 = aten.batch_norm.default(
            conv2d_8,
            self.resnet.encoder.stages[0].layers[2].layer[0].normalization.weight,
            self.resnet.encoder.stages[0].layers[2].layer[0].normalization.bias,
            self.resnet.encoder.stages[0].layers[2].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[2].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_8
        # resnet.encoder.stages.0.layers.2.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_7 = aten.relu.default(batch_norm_8)
        del batch_norm_8
        # resnet.encoder.stages.0.layers.2.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_9 = aten.conv2d.default(
            relu_7, self.resnet.encoder.stages[0].layers[2].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_7
        # resnet.encoder.stages.0.layers.2.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_9 = aten.batch_norm.default(
            conv2d_9,
            self.resnet.encoder.stages[0].layers[2].layer[1].normalization.weight,
            self.resnet.encoder.stages[0].layers[2].layer[1].normalization.bias,
            self.resnet.encoder.stages[0].layers[2].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[2].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_9
        # resnet.encoder.stages.0.layers.2.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_8 = aten.relu.default(batch_norm_9)
        del batch_norm_9
        # resnet.encoder.stages.0.layers.2.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_10 = aten.conv2d.default(relu_8, self.resnet.encoder.stages[0].layers[2].layer[2].convolution.weight)
        del relu_8
        # resnet.encoder.stages.0.layers.2.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_10 = aten.batch_norm.default(
            conv2d_10,
            self.resnet.encoder.stages[0].layers[2].layer[2].normalization.weight,
            self.resnet.encoder.stages[0].layers[2].layer[2].normalization.bias,
            self.resnet.encoder.stages[0].layers[2].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[0].layers[2].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_10
        # resnet.encoder.stages.0.layers.2 (transformers/models/resnet/modeling_resnet.py:176)
        add__2 = aten.add.Tensor(batch_norm_10, relu_6)
        del batch_norm_10, relu_6
        # resnet.encoder.stages.0.layers.2.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_9 = aten.relu.default(add__2)
        del add__2
        # resnet.encoder.stages.1.layers.0.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_11 = aten.conv2d.default(relu_9, self.resnet.encoder.stages[1].layers[0].layer[0].convolution.weight)
        # resnet.encoder.stages.1.layers.0.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_11 = aten.batch_norm.default(
            conv2d_11,
            self.resnet.encoder.stages[1].layers[0].layer[0].normalization.weight,
            self.resnet.encoder.stages[1].layers[0].layer[0].normalization.bias,
            self.resnet.encoder.stages[1].layers[0].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[0].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_11
        # resnet.encoder.stages.1.layers.0.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_10 = aten.relu.default(batch_norm_11)
        del batch_norm_11
        # resnet.encoder.stages.1.layers.0.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_12 = aten.conv2d.default(
            relu_10, self.resnet.encoder.stages[1].layers[0].layer[1].convolution.weight, None, [2, 2], [1, 1]
        )
        del relu_10
        # resnet.encoder.stages.1.layers.0.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_12 = aten.batch_norm.default(
            conv2d_12,
            self.resnet.encoder.stages[1].layers[0].layer[1].normalization.weight,
            self.resnet.encoder.stages[1].layers[0].layer[1].normalization.bias,
            self.resnet.encoder.stages[1].layers[0].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[0].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_12
        # resnet.encoder.stages.1.layers.0.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_11 = aten.relu.default(batch_norm_12)
        del batch_norm_12
        # resnet.encoder.stages.1.layers.0.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_13 = aten.conv2d.default(relu_11, self.resnet.encoder.stages[1].layers[0].layer[2].convolution.weight)
        del relu_11
        # resnet.encoder.stages.1.layers.0.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_13 = aten.batch_norm.default(
            conv2d_13,
            self.resnet.encoder.stages[1].layers[0].layer[2].normalization.weight,
            self.resnet.encoder.stages[1].layers[0].layer[2].normalization.bias,
            self.resnet.encoder.stages[1].layers[0].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[0].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_13
        # resnet.encoder.stages.1.layers.0.shortcut.convolution (transformers/models/resnet/modeling_resnet.py:108)
        conv2d_14 = aten.conv2d.default(
            relu_9, self.resnet.encoder.stages[1].layers[0].shortcut.convolution.weight, None, [2, 2]
        )
        del relu_9
        # resnet.encoder.stages.1.layers.0.shortcut.normalization (transformers/models/resnet/modeling_resnet.py:109)
        batch_norm_14 = aten.batch_norm.default(
            conv2d_14,
            self.resnet.encoder.stages[1].layers[0].shortcut.normalization.weight,
            self.resnet.encoder.stages[1].layers[0].shortcut.normalization.bias,
            self.resnet.encoder.stages[1].layers[0].shortcut.normalization.running_mean,
            self.resnet.encoder.stages[1].layers[0].shortcut.normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_14
        # resnet.encoder.stages.1.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        add__3 = aten.add.Tensor(batch_norm_13, batch_norm_14)
        del batch_norm_13, batch_norm_14
        # resnet.encoder.stages.1.layers.0.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_12 = aten.relu.default(add__3)
        del add__3
        # resnet.encoder.stages.1.layers.1.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_15 = aten.conv2d.default(relu_12, self.resnet.encoder.stages[1].layers[1].layer[0].convolution.weight)
        # resnet.encoder.stages.1.layers.1.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_15 = aten.batch_norm.default(
            conv2d_15,
            self.resnet.encoder.stages[1].layers[1].layer[0].normalization.weight,
            self.resnet.encoder.stages[1].layers[1].layer[0].normalization.bias,
            self.resnet.encoder.stages[1].layers[1].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[1].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_15
        # resnet.encoder.stages.1.layers.1.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_13 = aten.relu.default(batch_norm_15)
        del batch_norm_15
        return (relu_13, relu_12)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
