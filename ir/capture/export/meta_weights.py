"""Parameters on the meta device, replaced for a while so that the model is exported and checked as if on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

LIMIT = 1 << 30  # bytes of random weights for a check, at most


@contextmanager
def without_memory(model: nn.Module) -> Iterator[FakeTensorMode]:
    """Fake meta parameters as CPU tensors inside the context, so that no `device=meta` is recorded."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with _in_place_of_meta(model, lambda param: _fake_parameter(mode, param)):
        yield mode


def _fake_parameter(mode: FakeTensorMode, param: torch.Tensor) -> nn.Parameter:
    """A parameter without data on the CPU, made as `nn.Parameter` makes one of a tensor that nobody else has."""
    made: Any = FakeTensor(mode, param.detach(), torch.device("cpu"))
    made._is_param = True
    return made


@contextmanager
def in_memory(model: nn.Module) -> Iterator[bool]:
    """Small random values for meta parameters within the block; yields False if they take more than `LIMIT` bytes."""
    absent = {p for p in model.parameters() if p.is_meta}
    fits = sum(p.nbytes for p in absent) <= LIMIT
    with torch.random.fork_rng([]), _in_place_of_meta(model, _random if fits else _without_gradient):
        yield fits


def _random(param: nn.Parameter) -> nn.Parameter:
    values = torch.rand(param.shape, dtype=torch.float32) / 10 - 0.05
    return _without_gradient(values.to(param.dtype))


def _without_gradient(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


@contextmanager
def _in_place_of_meta(model: nn.Module, value: Callable[[nn.Parameter], nn.Parameter]) -> Iterator[None]:
    """Replace meta parameters inside the context; tied ones stay tied."""
    fakes: dict[nn.Parameter, nn.Parameter] = {}
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None and param.is_meta:
                if param not in fakes:
                    fakes[param] = value(param)
                replaced.append((module, name, param))
    try:
        for module, name, param in replaced:
            module._parameters[name] = fakes[param]
        yield
    finally:
        for module, name, param in replaced:
            module._parameters[name] = param
