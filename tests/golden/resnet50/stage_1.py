"""resnet50, stage 1 of 3, for cpu.

takes    relu_13: float32[batch, 128, 28, 28], from stage 0
takes    relu_12: float32[batch, 512, 28, 28], from stage 0
returns  add__9: float32[batch, 1024, 14, 14], to stage 2
holds    90 parameters, 17.3 MiB

Alone:   Stage1.load("stage_1.safetensors", device="cpu")(relu_13, relu_12)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "relu_13": (0, torch.float32, ("batch", 128, 28, 28)),
    "relu_12": (0, torch.float32, ("batch", 512, 28, 28)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "add__9": ([2], [], torch.float32, ("batch", 1024, 14, 14)),
}

# name: (dtype, shape)
PARAMETERS = {
    "resnet.encoder.stages.1.layers.1.layer.1.convolution.weight": (torch.float32, (128, 128, 3, 3)),
    "resnet.encoder.stages.1.layers.1.layer.1.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.1.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.2.convolution.weight": (torch.float32, (512, 128, 1, 1)),
    "resnet.encoder.stages.1.layers.1.layer.2.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.1.layer.2.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.2.layer.0.convolution.weight": (torch.float32, (128, 512, 1, 1)),
    "resnet.encoder.stages.1.layers.2.layer.0.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.0.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.1.convolution.weight": (torch.float32, (128, 128, 3, 3)),
    "resnet.encoder.stages.1.layers.2.layer.1.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.1.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.2.convolution.weight": (torch.float32, (512, 128, 1, 1)),
    "resnet.encoder.stages.1.layers.2.layer.2.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.2.layer.2.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.3.layer.0.convolution.weight": (torch.float32, (128, 512, 1, 1)),
    "resnet.encoder.stages.1.layers.3.layer.0.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.0.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.1.convolution.weight": (torch.float32, (128, 128, 3, 3)),
    "resnet.encoder.stages.1.layers.3.layer.1.normalization.weight": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.1.normalization.bias": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.2.convolution.weight": (torch.float32, (512, 128, 1, 1)),
    "resnet.encoder.stages.1.layers.3.layer.2.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.3.layer.2.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.2.layers.0.shortcut.convolution.weight": (torch.float32, (1024, 512, 1, 1)),
    "resnet.encoder.stages.2.layers.0.shortcut.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.shortcut.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.layer.0.convolution.weight": (torch.float32, (256, 512, 1, 1)),
    "resnet.encoder.stages.2.layers.0.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.0.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.0.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.layer.2.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.1.layer.0.convolution.weight": (torch.float32, (256, 1024, 1, 1)),
    "resnet.encoder.stages.2.layers.1.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.1.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.1.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.1.layer.2.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.2.layer.0.convolution.weight": (torch.float32, (256, 1024, 1, 1)),
    "resnet.encoder.stages.2.layers.2.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.2.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.2.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.2.layer.2.normalization.bias": (torch.float32, (1024,)),
}

# name: (dtype, shape), from the checkpoint as well
BUFFERS = {
    "resnet.encoder.stages.1.layers.1.layer.1.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.1.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.1.layer.2.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.1.layer.2.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.2.layer.0.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.0.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.1.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.1.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.2.layer.2.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.2.layer.2.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.3.layer.0.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.0.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.1.normalization.running_mean": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.1.normalization.running_var": (torch.float32, (128,)),
    "resnet.encoder.stages.1.layers.3.layer.2.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.1.layers.3.layer.2.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.2.layers.0.shortcut.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.shortcut.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.0.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.0.layer.2.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.1.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.1.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.1.layer.2.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.2.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.2.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.2.layer.2.normalization.running_var": (torch.float32, (1024,)),
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
        for name, (dtype, shape) in BUFFERS.items():
            place(self, name, torch.empty(shape, dtype=dtype))

    def forward(self, relu_13, relu_12):
        # resnet.encoder.stages.1.layers.1.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_16 = aten.conv2d.default(
            relu_13, self.resnet.encoder.stages[1].layers[1].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_13
        # resnet.encoder.stages.1.layers.1.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_16 = aten.batch_norm.default(
            conv2d_16,
            self.resnet.encoder.stages[1].layers[1].layer[1].normalization.weight,
            self.resnet.encoder.stages[1].layers[1].layer[1].normalization.bias,
            self.resnet.encoder.stages[1].layers[1].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[1].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_16
        # resnet.encoder.stages.1.layers.1.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_14 = aten.relu.default(batch_norm_16)
        del batch_norm_16
        # resnet.encoder.stages.1.layers.1.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_17 = aten.conv2d.default(relu_14, self.resnet.encoder.stages[1].layers[1].layer[2].convolution.weight)
        del relu_14
        # resnet.encoder.stages.1.layers.1.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_17 = aten.batch_norm.default(
            conv2d_17,
            self.resnet.encoder.stages[1].layers[1].layer[2].normalization.weight,
            self.resnet.encoder.stages[1].layers[1].layer[2].normalization.bias,
            self.resnet.encoder.stages[1].layers[1].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[1].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_17
        # resnet.encoder.stages.1.layers.1 (transformers/models/resnet/modeling_resnet.py:176)
        add__4 = aten.add.Tensor(batch_norm_17, relu_12)
        del batch_norm_17, relu_12
        # resnet.encoder.stages.1.layers.1.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_15 = aten.relu.default(add__4)
        del add__4
        # resnet.encoder.stages.1.layers.2.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_18 = aten.conv2d.default(relu_15, self.resnet.encoder.stages[1].layers[2].layer[0].convolution.weight)
        # resnet.encoder.stages.1.layers.2.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_18 = aten.batch_norm.default(
            conv2d_18,
            self.resnet.encoder.stages[1].layers[2].layer[0].normalization.weight,
            self.resnet.encoder.stages[1].layers[2].layer[0].normalization.bias,
            self.resnet.encoder.stages[1].layers[2].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[2].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_18
        # resnet.encoder.stages.1.layers.2.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_16 = aten.relu.default(batch_norm_18)
        del batch_norm_18
        # resnet.encoder.stages.1.layers.2.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_19 = aten.conv2d.default(
            relu_16, self.resnet.encoder.stages[1].layers[2].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_16
        # resnet.encoder.stages.1.layers.2.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_19 = aten.batch_norm.default(
            conv2d_19,
            self.resnet.encoder.stages[1].layers[2].layer[1].normalization.weight,
            self.resnet.encoder.stages[1].layers[2].layer[1].normalization.bias,
            self.resnet.encoder.stages[1].layers[2].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[2].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_19
        # resnet.encoder.stages.1.layers.2.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_17 = aten.relu.default(batch_norm_19)
        del batch_norm_19
        # resnet.encoder.stages.1.layers.2.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_20 = aten.conv2d.default(relu_17, self.resnet.encoder.stages[1].layers[2].layer[2].convolution.weight)
        del relu_17
        # resnet.encoder.stages.1.layers.2.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_20 = aten.batch_norm.default(
            conv2d_20,
            self.resnet.encoder.stages[1].layers[2].layer[2].normalization.weight,
            self.resnet.encoder.stages[1].layers[2].layer[2].normalization.bias,
            self.resnet.encoder.stages[1].layers[2].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[2].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_20
        # resnet.encoder.stages.1.layers.2 (transformers/models/resnet/modeling_resnet.py:176)
        add__5 = aten.add.Tensor(batch_norm_20, relu_15)
        del batch_norm_20, relu_15
        # resnet.encoder.stages.1.layers.2.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_18 = aten.relu.default(add__5)
        del add__5
        # resnet.encoder.stages.1.layers.3.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_21 = aten.conv2d.default(relu_18, self.resnet.encoder.stages[1].layers[3].layer[0].convolution.weight)
        # resnet.encoder.stages.1.layers.3.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_21 = aten.batch_norm.default(
            conv2d_21,
            self.resnet.encoder.stages[1].layers[3].layer[0].normalization.weight,
            self.resnet.encoder.stages[1].layers[3].layer[0].normalization.bias,
            self.resnet.encoder.stages[1].layers[3].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[3].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_21
        # resnet.encoder.stages.1.layers.3.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_19 = aten.relu.default(batch_norm_21)
        del batch_norm_21
        # resnet.encoder.stages.1.layers.3.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_22 = aten.conv2d.default(
            relu_19, self.resnet.encoder.stages[1].layers[3].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_19
        # resnet.encoder.stages.1.layers.3.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_22 = aten.batch_norm.default(
            conv2d_22,
            self.resnet.encoder.stages[1].layers[3].layer[1].normalization.weight,
            self.resnet.encoder.stages[1].layers[3].layer[1].normalization.bias,
            self.resnet.encoder.stages[1].layers[3].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[3].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_22
        # resnet.encoder.stages.1.layers.3.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_20 = aten.relu.default(batch_norm_22)
        del batch_norm_22
        # resnet.encoder.stages.1.layers.3.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_23 = aten.conv2d.default(relu_20, self.resnet.encoder.stages[1].layers[3].layer[2].convolution.weight)
        del relu_20
        # resnet.encoder.stages.1.layers.3.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_23 = aten.batch_norm.default(
            conv2d_23,
            self.resnet.encoder.stages[1].layers[3].layer[2].normalization.weight,
            self.resnet.encoder.stages[1].layers[3].layer[2].normalization.bias,
            self.resnet.encoder.stages[1].layers[3].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[1].layers[3].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_23
        # resnet.encoder.stages.1.layers.3 (transformers/models/resnet/modeling_resnet.py:176)
        add__6 = aten.add.Tensor(batch_norm_23, relu_18)
        del batch_norm_23, relu_18
        # resnet.encoder.stages.1.layers.3.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_21 = aten.relu.default(add__6)
        del add__6
        # resnet.encoder.stages.2.layers.0.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_24 = aten.conv2d.default(relu_21, self.resnet.encoder.stages[2].layers[0].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.0.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_24 = aten.batch_norm.default(
            conv2d_24,
            self.resnet.encoder.stages[2].layers[0].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[0].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[0].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[0].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_24
        # resnet.encoder.stages.2.layers.0.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_22 = aten.relu.default(batch_norm_24)
        del batch_norm_24
        # resnet.encoder.stages.2.layers.0.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_25 = aten.conv2d.default(
            relu_22, self.resnet.encoder.stages[2].layers[0].layer[1].convolution.weight, None, [2, 2], [1, 1]
        )
        del relu_22
        # resnet.encoder.stages.2.layers.0.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_25 = aten.batch_norm.default(
            conv2d_25,
            self.resnet.encoder.stages[2].layers[0].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[0].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[0].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[0].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_25
        # resnet.encoder.stages.2.layers.0.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_23 = aten.relu.default(batch_norm_25)
        del batch_norm_25
        # resnet.encoder.stages.2.layers.0.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_26 = aten.conv2d.default(relu_23, self.resnet.encoder.stages[2].layers[0].layer[2].convolution.weight)
        del relu_23
        # resnet.encoder.stages.2.layers.0.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_26 = aten.batch_norm.default(
            conv2d_26,
            self.resnet.encoder.stages[2].layers[0].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[0].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[0].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[0].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_26
        # resnet.encoder.stages.2.layers.0.shortcut.convolution (transformers/models/resnet/modeling_resnet.py:108)
        conv2d_27 = aten.conv2d.default(
            relu_21, self.resnet.encoder.stages[2].layers[0].shortcut.convolution.weight, None, [2, 2]
        )
        del relu_21
        # resnet.encoder.stages.2.layers.0.shortcut.normalization (transformers/models/resnet/modeling_resnet.py:109)
        batch_norm_27 = aten.batch_norm.default(
            conv2d_27,
            self.resnet.encoder.stages[2].layers[0].shortcut.normalization.weight,
            self.resnet.encoder.stages[2].layers[0].shortcut.normalization.bias,
            self.resnet.encoder.stages[2].layers[0].shortcut.normalization.running_mean,
            self.resnet.encoder.stages[2].layers[0].shortcut.normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_27
        # resnet.encoder.stages.2.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        add__7 = aten.add.Tensor(batch_norm_26, batch_norm_27)
        del batch_norm_26, batch_norm_27
        # resnet.encoder.stages.2.layers.0.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_24 = aten.relu.default(add__7)
        del add__7
        # resnet.encoder.stages.2.layers.1.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_28 = aten.conv2d.default(relu_24, self.resnet.encoder.stages[2].layers[1].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.1.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_28 = aten.batch_norm.default(
            conv2d_28,
            self.resnet.encoder.stages[2].layers[1].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[1].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[1].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[1].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_28
        # resnet.encoder.stages.2.layers.1.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_25 = aten.relu.default(batch_norm_28)
        del batch_norm_28
        # resnet.encoder.stages.2.layers.1.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_29 = aten.conv2d.default(
            relu_25, self.resnet.encoder.stages[2].layers[1].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_25
        # resnet.encoder.stages.2.layers.1.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_29 = aten.batch_norm.default(
            conv2d_29,
            self.resnet.encoder.stages[2].layers[1].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[1].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[1].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[1].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_29
        # resnet.encoder.stages.2.layers.1.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_26 = aten.relu.default(batch_norm_29)
        del batch_norm_29
        # resnet.encoder.stages.2.layers.1.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_30 = aten.conv2d.default(relu_26, self.resnet.encoder.stages[2].layers[1].layer[2].convolution.weight)
        del relu_26
        # resnet.encoder.stages.2.layers.1.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_30 = aten.batch_norm.default(
            conv2d_30,
            self.resnet.encoder.stages[2].layers[1].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[1].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[1].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[1].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_30
        # resnet.encoder.stages.2.layers.1 (transformers/models/resnet/modeling_resnet.py:176)
        add__8 = aten.add.Tensor(batch_norm_30, relu_24)
        del batch_norm_30, relu_24
        # resnet.encoder.stages.2.layers.1.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_27 = aten.relu.default(add__8)
        del add__8
        # resnet.encoder.stages.2.layers.2.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_31 = aten.conv2d.default(relu_27, self.resnet.encoder.stages[2].layers[2].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.2.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_31 = aten.batch_norm.default(
            conv2d_31,
            self.resnet.encoder.stages[2].layers[2].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[2].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[2].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[2].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_31
        # resnet.encoder.stages.2.layers.2.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_28 = aten.relu.default(batch_norm_31)
        del batch_norm_31
        # resnet.encoder.stages.2.layers.2.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_32 = aten.conv2d.default(
            relu_28, self.resnet.encoder.stages[2].layers[2].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_28
        # resnet.encoder.stages.2.layers.2.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_32 = aten.batch_norm.default(
            conv2d_32,
            self.resnet.encoder.stages[2].layers[2].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[2].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[2].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[2].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_32
        # resnet.encoder.stages.2.layers.2.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_29 = aten.relu.default(batch_norm_32)
        del batch_norm_32
        # resnet.encoder.stages.2.layers.2.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_33 = aten.conv2d.default(relu_29, self.resnet.encoder.stages[2].layers[2].layer[2].convolution.weight)
        del relu_29
        # resnet.encoder.stages.2.layers.2.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_33 = aten.batch_norm.default(
            conv2d_33,
            self.resnet.encoder.stages[2].layers[2].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[2].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[2].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[2].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_33
        # resnet.encoder.stages.2.layers.2 (transformers/models/resnet/modeling_resnet.py:176)
        add__9 = aten.add.Tensor(batch_norm_33, relu_27)
        del batch_norm_33, relu_27
        return (add__9,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
