"""Parameters without memory: a model on the meta device is exported as if it stood on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv


@contextmanager
def without_memory(model: nn.Module) -> Iterator[None]:
    """While this lasts, meta parameters say that they are on the CPU, so that no `device=meta` is recorded.

    Parameters that are tied stay so; everything else of the model is as it was.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes: dict[nn.Parameter, nn.Parameter] = {}
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None and param.is_meta:
                if param not in fakes:
                    fake = FakeTensor(mode, param.detach(), torch.device("cpu"))
                    fakes[param] = nn.Parameter(fake, requires_grad=False)
                replaced.append((module, name, param))
    try:
        for module, name, param in replaced:
            module._parameters[name] = fakes[param]
        yield
    finally:
        for module, name, param in replaced:
            module._parameters[name] = param
