"""Parameters on the meta device, replaced for a while so that the model is exported and checked as if on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

LIMIT = 1 << 30  # bytes of random weights for a check, at most


@contextmanager
def without_memory(model: nn.Module) -> Iterator[FakeTensorMode]:
    """Fake meta parameters as CPU tensors inside the context, so that no `device=meta` is recorded."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    with _in_place_of_meta(model, lambda param: FakeTensor(mode, param.detach(), torch.device("cpu"))):
        yield mode


@contextmanager
def in_memory(model: nn.Module) -> Iterator[bool]:
    """Small random values for meta parameters within the block; yields False if they take more than `LIMIT` bytes."""
    absent = {p for p in model.parameters() if p.is_meta}
    fits = sum(p.nbytes for p in absent) <= LIMIT
    with torch.random.fork_rng([]), _in_place_of_meta(model, _random if fits else lambda param: param):
        yield fits


def _random(param: torch.Tensor) -> torch.Tensor:
    values = torch.rand(param.shape, dtype=torch.float32) / 10 - 0.05
    return values.to(param.dtype)


@contextmanager
def _in_place_of_meta(model: nn.Module, value: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replace meta parameters inside the context; tied ones stay tied."""
    fakes: dict[nn.Parameter, nn.Parameter] = {}
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in model.modules():
        for name, param in module._parameters.items():
            if param is not None and param.is_meta:
                if param not in fakes:
                    fakes[param] = nn.Parameter(value(param), requires_grad=False)
                replaced.append((module, name, param))
    try:
        for module, name, param in replaced:
            module._parameters[name] = fakes[param]
        yield
    finally:
        for module, name, param in replaced:
            module._parameters[name] = param
