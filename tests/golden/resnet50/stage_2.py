"""resnet50, stage 2 of 3, for cpu.

takes    add__9: float32[batch, 1024, 14, 14], from stage 1
returns  linear: float32[batch, 1000], to output 0 of the model
holds    97 parameters, 77.8 MiB

Alone:   Stage2.load("stage_2.safetensors", device="cpu")(add__9)
"""

import torch
from safetensors import safe_open
from torch import nn

aten = torch.ops.aten

# name: (from which stage, or None for an input of the model; dtype; shape)
RECEIVES = {
    "add__9": (1, torch.float32, ("batch", 1024, 14, 14)),
}

# name: (to which stages; as which outputs of the model; dtype; shape)
SENDS = {
    "linear": ([], [0], torch.float32, ("batch", 1000)),
}

# name: (dtype, shape)
PARAMETERS = {
    "resnet.encoder.stages.2.layers.3.layer.0.convolution.weight": (torch.float32, (256, 1024, 1, 1)),
    "resnet.encoder.stages.2.layers.3.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.3.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.3.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.3.layer.2.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.4.layer.0.convolution.weight": (torch.float32, (256, 1024, 1, 1)),
    "resnet.encoder.stages.2.layers.4.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.4.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.4.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.4.layer.2.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.5.layer.0.convolution.weight": (torch.float32, (256, 1024, 1, 1)),
    "resnet.encoder.stages.2.layers.5.layer.0.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.0.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.1.convolution.weight": (torch.float32, (256, 256, 3, 3)),
    "resnet.encoder.stages.2.layers.5.layer.1.normalization.weight": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.1.normalization.bias": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.2.convolution.weight": (torch.float32, (1024, 256, 1, 1)),
    "resnet.encoder.stages.2.layers.5.layer.2.normalization.weight": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.5.layer.2.normalization.bias": (torch.float32, (1024,)),
    "resnet.encoder.stages.3.layers.0.shortcut.convolution.weight": (torch.float32, (2048, 1024, 1, 1)),
    "resnet.encoder.stages.3.layers.0.shortcut.normalization.weight": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.shortcut.normalization.bias": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.layer.0.convolution.weight": (torch.float32, (512, 1024, 1, 1)),
    "resnet.encoder.stages.3.layers.0.layer.0.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.0.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.1.convolution.weight": (torch.float32, (512, 512, 3, 3)),
    "resnet.encoder.stages.3.layers.0.layer.1.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.1.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.2.convolution.weight": (torch.float32, (2048, 512, 1, 1)),
    "resnet.encoder.stages.3.layers.0.layer.2.normalization.weight": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.layer.2.normalization.bias": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.1.layer.0.convolution.weight": (torch.float32, (512, 2048, 1, 1)),
    "resnet.encoder.stages.3.layers.1.layer.0.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.0.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.1.convolution.weight": (torch.float32, (512, 512, 3, 3)),
    "resnet.encoder.stages.3.layers.1.layer.1.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.1.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.2.convolution.weight": (torch.float32, (2048, 512, 1, 1)),
    "resnet.encoder.stages.3.layers.1.layer.2.normalization.weight": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.1.layer.2.normalization.bias": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.2.layer.0.convolution.weight": (torch.float32, (512, 2048, 1, 1)),
    "resnet.encoder.stages.3.layers.2.layer.0.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.0.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.1.convolution.weight": (torch.float32, (512, 512, 3, 3)),
    "resnet.encoder.stages.3.layers.2.layer.1.normalization.weight": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.1.normalization.bias": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.2.convolution.weight": (torch.float32, (2048, 512, 1, 1)),
    "resnet.encoder.stages.3.layers.2.layer.2.normalization.weight": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.2.layer.2.normalization.bias": (torch.float32, (2048,)),
    "classifier.1.weight": (torch.float32, (1000, 2048)),
    "classifier.1.bias": (torch.float32, (1000,)),
}

# name: (dtype, shape), from the checkpoint as well
BUFFERS = {
    "resnet.encoder.stages.2.layers.3.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.3.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.3.layer.2.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.4.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.4.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.4.layer.2.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.5.layer.0.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.0.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.1.normalization.running_mean": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.1.normalization.running_var": (torch.float32, (256,)),
    "resnet.encoder.stages.2.layers.5.layer.2.normalization.running_mean": (torch.float32, (1024,)),
    "resnet.encoder.stages.2.layers.5.layer.2.normalization.running_var": (torch.float32, (1024,)),
    "resnet.encoder.stages.3.layers.0.shortcut.normalization.running_mean": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.shortcut.normalization.running_var": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.layer.0.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.0.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.1.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.1.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.0.layer.2.normalization.running_mean": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.0.layer.2.normalization.running_var": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.1.layer.0.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.0.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.1.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.1.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.1.layer.2.normalization.running_mean": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.1.layer.2.normalization.running_var": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.2.layer.0.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.0.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.1.normalization.running_mean": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.1.normalization.running_var": (torch.float32, (512,)),
    "resnet.encoder.stages.3.layers.2.layer.2.normalization.running_mean": (torch.float32, (2048,)),
    "resnet.encoder.stages.3.layers.2.layer.2.normalization.running_var": (torch.float32, (2048,)),
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
        for name, (dtype, shape) in BUFFERS.items():
            place(self, name, torch.empty(shape, dtype=dtype))

    def forward(self, add__9):
        # resnet.encoder.stages.2.layers.2.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_30 = aten.relu.default(add__9)
        del add__9
        # resnet.encoder.stages.2.layers.3.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_34 = aten.conv2d.default(relu_30, self.resnet.encoder.stages[2].layers[3].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.3.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_34 = aten.batch_norm.default(
            conv2d_34,
            self.resnet.encoder.stages[2].layers[3].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[3].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[3].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[3].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_34
        # resnet.encoder.stages.2.layers.3.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_31 = aten.relu.default(batch_norm_34)
        del batch_norm_34
        # resnet.encoder.stages.2.layers.3.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_35 = aten.conv2d.default(
            relu_31, self.resnet.encoder.stages[2].layers[3].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_31
        # resnet.encoder.stages.2.layers.3.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_35 = aten.batch_norm.default(
            conv2d_35,
            self.resnet.encoder.stages[2].layers[3].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[3].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[3].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[3].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_35
        # resnet.encoder.stages.2.layers.3.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_32 = aten.relu.default(batch_norm_35)
        del batch_norm_35
        # resnet.encoder.stages.2.layers.3.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_36 = aten.conv2d.default(relu_32, self.resnet.encoder.stages[2].layers[3].layer[2].convolution.weight)
        del relu_32
        # resnet.encoder.stages.2.layers.3.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_36 = aten.batch_norm.default(
            conv2d_36,
            self.resnet.encoder.stages[2].layers[3].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[3].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[3].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[3].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_36
        # resnet.encoder.stages.2.layers.3 (transformers/models/resnet/modeling_resnet.py:176)
        add__10 = aten.add.Tensor(batch_norm_36, relu_30)
        del batch_norm_36, relu_30
        # resnet.encoder.stages.2.layers.3.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_33 = aten.relu.default(add__10)
        del add__10
        # resnet.encoder.stages.2.layers.4.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_37 = aten.conv2d.default(relu_33, self.resnet.encoder.stages[2].layers[4].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.4.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_37 = aten.batch_norm.default(
            conv2d_37,
            self.resnet.encoder.stages[2].layers[4].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[4].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[4].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[4].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_37
        # resnet.encoder.stages.2.layers.4.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_34 = aten.relu.default(batch_norm_37)
        del batch_norm_37
        # resnet.encoder.stages.2.layers.4.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_38 = aten.conv2d.default(
            relu_34, self.resnet.encoder.stages[2].layers[4].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_34
        # resnet.encoder.stages.2.layers.4.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_38 = aten.batch_norm.default(
            conv2d_38,
            self.resnet.encoder.stages[2].layers[4].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[4].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[4].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[4].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_38
        # resnet.encoder.stages.2.layers.4.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_35 = aten.relu.default(batch_norm_38)
        del batch_norm_38
        # resnet.encoder.stages.2.layers.4.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_39 = aten.conv2d.default(relu_35, self.resnet.encoder.stages[2].layers[4].layer[2].convolution.weight)
        del relu_35
        # resnet.encoder.stages.2.layers.4.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_39 = aten.batch_norm.default(
            conv2d_39,
            self.resnet.encoder.stages[2].layers[4].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[4].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[4].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[4].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_39
        # resnet.encoder.stages.2.layers.4 (transformers/models/resnet/modeling_resnet.py:176)
        add__11 = aten.add.Tensor(batch_norm_39, relu_33)
        del batch_norm_39, relu_33
        # resnet.encoder.stages.2.layers.4.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_36 = aten.relu.default(add__11)
        del add__11
        # resnet.encoder.stages.2.layers.5.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_40 = aten.conv2d.default(relu_36, self.resnet.encoder.stages[2].layers[5].layer[0].convolution.weight)
        # resnet.encoder.stages.2.layers.5.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_40 = aten.batch_norm.default(
            conv2d_40,
            self.resnet.encoder.stages[2].layers[5].layer[0].normalization.weight,
            self.resnet.encoder.stages[2].layers[5].layer[0].normalization.bias,
            self.resnet.encoder.stages[2].layers[5].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[5].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_40
        # resnet.encoder.stages.2.layers.5.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_37 = aten.relu.default(batch_norm_40)
        del batch_norm_40
        # resnet.encoder.stages.2.layers.5.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_41 = aten.conv2d.default(
            relu_37, self.resnet.encoder.stages[2].layers[5].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_37
        # resnet.encoder.stages.2.layers.5.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_41 = aten.batch_norm.default(
            conv2d_41,
            self.resnet.encoder.stages[2].layers[5].layer[1].normalization.weight,
            self.resnet.encoder.stages[2].layers[5].layer[1].normalization.bias,
            self.resnet.encoder.stages[2].layers[5].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[5].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_41
        # resnet.encoder.stages.2.layers.5.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_38 = aten.relu.default(batch_norm_41)
        del batch_norm_41
        # resnet.encoder.stages.2.layers.5.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_42 = aten.conv2d.default(relu_38, self.resnet.encoder.stages[2].layers[5].layer[2].convolution.weight)
        del relu_38
        # resnet.encoder.stages.2.layers.5.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_42 = aten.batch_norm.default(
            conv2d_42,
            self.resnet.encoder.stages[2].layers[5].layer[2].normalization.weight,
            self.resnet.encoder.stages[2].layers[5].layer[2].normalization.bias,
            self.resnet.encoder.stages[2].layers[5].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[2].layers[5].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_42
        # resnet.encoder.stages.2.layers.5 (transformers/models/resnet/modeling_resnet.py:176)
        add__12 = aten.add.Tensor(batch_norm_42, relu_36)
        del batch_norm_42, relu_36
        # resnet.encoder.stages.2.layers.5.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_39 = aten.relu.default(add__12)
        del add__12
        # resnet.encoder.stages.3.layers.0.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_43 = aten.conv2d.default(relu_39, self.resnet.encoder.stages[3].layers[0].layer[0].convolution.weight)
        # resnet.encoder.stages.3.layers.0.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_43 = aten.batch_norm.default(
            conv2d_43,
            self.resnet.encoder.stages[3].layers[0].layer[0].normalization.weight,
            self.resnet.encoder.stages[3].layers[0].layer[0].normalization.bias,
            self.resnet.encoder.stages[3].layers[0].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[0].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_43
        # resnet.encoder.stages.3.layers.0.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_40 = aten.relu.default(batch_norm_43)
        del batch_norm_43
        # resnet.encoder.stages.3.layers.0.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_44 = aten.conv2d.default(
            relu_40, self.resnet.encoder.stages[3].layers[0].layer[1].convolution.weight, None, [2, 2], [1, 1]
        )
        del relu_40
        # resnet.encoder.stages.3.layers.0.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_44 = aten.batch_norm.default(
            conv2d_44,
            self.resnet.encoder.stages[3].layers[0].layer[1].normalization.weight,
            self.resnet.encoder.stages[3].layers[0].layer[1].normalization.bias,
            self.resnet.encoder.stages[3].layers[0].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[0].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_44
        # resnet.encoder.stages.3.layers.0.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_41 = aten.relu.default(batch_norm_44)
        del batch_norm_44
        # resnet.encoder.stages.3.layers.0.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_45 = aten.conv2d.default(relu_41, self.resnet.encoder.stages[3].layers[0].layer[2].convolution.weight)
        del relu_41
        # resnet.encoder.stages.3.layers.0.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_45 = aten.batch_norm.default(
            conv2d_45,
            self.resnet.encoder.stages[3].layers[0].layer[2].normalization.weight,
            self.resnet.encoder.stages[3].layers[0].layer[2].normalization.bias,
            self.resnet.encoder.stages[3].layers[0].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[0].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_45
        # resnet.encoder.stages.3.layers.0.shortcut.convolution (transformers/models/resnet/modeling_resnet.py:108)
        conv2d_46 = aten.conv2d.default(
            relu_39, self.resnet.encoder.stages[3].layers[0].shortcut.convolution.weight, None, [2, 2]
        )
        del relu_39
        # resnet.encoder.stages.3.layers.0.shortcut.normalization (transformers/models/resnet/modeling_resnet.py:109)
        batch_norm_46 = aten.batch_norm.default(
            conv2d_46,
            self.resnet.encoder.stages[3].layers[0].shortcut.normalization.weight,
            self.resnet.encoder.stages[3].layers[0].shortcut.normalization.bias,
            self.resnet.encoder.stages[3].layers[0].shortcut.normalization.running_mean,
            self.resnet.encoder.stages[3].layers[0].shortcut.normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_46
        # resnet.encoder.stages.3.layers.0 (transformers/models/resnet/modeling_resnet.py:176)
        add__13 = aten.add.Tensor(batch_norm_45, batch_norm_46)
        del batch_norm_45, batch_norm_46
        # resnet.encoder.stages.3.layers.0.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_42 = aten.relu.default(add__13)
        del add__13
        # resnet.encoder.stages.3.layers.1.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_47 = aten.conv2d.default(relu_42, self.resnet.encoder.stages[3].layers[1].layer[0].convolution.weight)
        # resnet.encoder.stages.3.layers.1.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_47 = aten.batch_norm.default(
            conv2d_47,
            self.resnet.encoder.stages[3].layers[1].layer[0].normalization.weight,
            self.resnet.encoder.stages[3].layers[1].layer[0].normalization.bias,
            self.resnet.encoder.stages[3].layers[1].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[1].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_47
        # resnet.encoder.stages.3.layers.1.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_43 = aten.relu.default(batch_norm_47)
        del batch_norm_47
        # resnet.encoder.stages.3.layers.1.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_48 = aten.conv2d.default(
            relu_43, self.resnet.encoder.stages[3].layers[1].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_43
        # resnet.encoder.stages.3.layers.1.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_48 = aten.batch_norm.default(
            conv2d_48,
            self.resnet.encoder.stages[3].layers[1].layer[1].normalization.weight,
            self.resnet.encoder.stages[3].layers[1].layer[1].normalization.bias,
            self.resnet.encoder.stages[3].layers[1].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[1].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_48
        # resnet.encoder.stages.3.layers.1.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_44 = aten.relu.default(batch_norm_48)
        del batch_norm_48
        # resnet.encoder.stages.3.layers.1.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_49 = aten.conv2d.default(relu_44, self.resnet.encoder.stages[3].layers[1].layer[2].convolution.weight)
        del relu_44
        # resnet.encoder.stages.3.layers.1.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_49 = aten.batch_norm.default(
            conv2d_49,
            self.resnet.encoder.stages[3].layers[1].layer[2].normalization.weight,
            self.resnet.encoder.stages[3].layers[1].layer[2].normalization.bias,
            self.resnet.encoder.stages[3].layers[1].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[1].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_49
        # resnet.encoder.stages.3.layers.1 (transformers/models/resnet/modeling_resnet.py:176)
        add__14 = aten.add.Tensor(batch_norm_49, relu_42)
        del batch_norm_49, relu_42
        # resnet.encoder.stages.3.layers.1.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_45 = aten.relu.default(add__14)
        del add__14
        # resnet.encoder.stages.3.layers.2.layer.0.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_50 = aten.conv2d.default(relu_45, self.resnet.encoder.stages[3].layers[2].layer[0].convolution.weight)
        # resnet.encoder.stages.3.layers.2.layer.0.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_50 = aten.batch_norm.default(
            conv2d_50,
            self.resnet.encoder.stages[3].layers[2].layer[0].normalization.weight,
            self.resnet.encoder.stages[3].layers[2].layer[0].normalization.bias,
            self.resnet.encoder.stages[3].layers[2].layer[0].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[2].layer[0].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_50
        # resnet.encoder.stages.3.layers.2.layer.0.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_46 = aten.relu.default(batch_norm_50)
        del batch_norm_50
        # resnet.encoder.stages.3.layers.2.layer.1.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_51 = aten.conv2d.default(
            relu_46, self.resnet.encoder.stages[3].layers[2].layer[1].convolution.weight, None, [1, 1], [1, 1]
        )
        del relu_46
        # resnet.encoder.stages.3.layers.2.layer.1.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_51 = aten.batch_norm.default(
            conv2d_51,
            self.resnet.encoder.stages[3].layers[2].layer[1].normalization.weight,
            self.resnet.encoder.stages[3].layers[2].layer[1].normalization.bias,
            self.resnet.encoder.stages[3].layers[2].layer[1].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[2].layer[1].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_51
        # resnet.encoder.stages.3.layers.2.layer.1.activation (transformers/models/resnet/modeling_resnet.py:68)
        relu_47 = aten.relu.default(batch_norm_51)
        del batch_norm_51
        # resnet.encoder.stages.3.layers.2.layer.2.convolution (transformers/models/resnet/modeling_resnet.py:66)
        conv2d_52 = aten.conv2d.default(relu_47, self.resnet.encoder.stages[3].layers[2].layer[2].convolution.weight)
        del relu_47
        # resnet.encoder.stages.3.layers.2.layer.2.normalization (transformers/models/resnet/modeling_resnet.py:67)
        batch_norm_52 = aten.batch_norm.default(
            conv2d_52,
            self.resnet.encoder.stages[3].layers[2].layer[2].normalization.weight,
            self.resnet.encoder.stages[3].layers[2].layer[2].normalization.bias,
            self.resnet.encoder.stages[3].layers[2].layer[2].normalization.running_mean,
            self.resnet.encoder.stages[3].layers[2].layer[2].normalization.running_var,
            False,
            0.1,
            1e-05,
            False,
        )
        del conv2d_52
        # resnet.encoder.stages.3.layers.2 (transformers/models/resnet/modeling_resnet.py:176)
        add__15 = aten.add.Tensor(batch_norm_52, relu_45)
        del batch_norm_52, relu_45
        # resnet.encoder.stages.3.layers.2.activation (transformers/models/resnet/modeling_resnet.py:177)
        relu_48 = aten.relu.default(add__15)
        del add__15
        # resnet.pooler (transformers/models/resnet/modeling_resnet.py:322)
        adaptive_avg_pool2d = aten.adaptive_avg_pool2d.default(relu_48, [1, 1])
        del relu_48
        # classifier.0 (transformers/models/resnet/modeling_resnet.py:373)
        flatten = aten.flatten.using_ints(adaptive_avg_pool2d, 1)
        del adaptive_avg_pool2d
        # classifier.1 (transformers/models/resnet/modeling_resnet.py:373)
        linear = aten.linear.default(flatten, self.classifier[1].weight, self.classifier[1].bias)
        del flatten
        return (linear,)

    @classmethod
    def load(cls, path, device="cpu"):
        """The stage with its weights, each read into memory of its own on the device."""
        with torch.device("meta"):
            stage = cls()
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}
        stage.load_state_dict(tensors, assign=True)
        return stage.eval()
