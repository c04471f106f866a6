"""Weights and inputs that stages can hold: dense tensors that lie in the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ir.errors import CaptureError
from ir.location import Where


def not_carried(kind: str, where: Where) -> str:
    """The message on an object of a class `kind`, no tensor, that a model passes to an operator."""
    advice = "; draw from torch's own random numbers" if "Generator" in kind else ""
    return f"the model uses a {kind}, which stages cannot carry, in {where}{advice}"


def require_holdable(model: nn.Module) -> None:
    """Raise CaptureError for a weight that is no dense tensor, is packed or is kept elsewhere, with a way out."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(f"{path or 'the model'} is a ScriptModule; use the nn.Module that it was made from")
        if _offloads(vars(module).get("_hf_hook")):
            way_out = "load it without offloading, or cut its checkpoint folder: the weights are then never in memory"
            raise CaptureError(
                f"accelerate offloads the weights of {path or 'the model'} until it is called; {way_out}"
            )
        for fqn, value in _held(path, module):
            if isinstance(value, torch.ScriptObject):
                raise CaptureError(f"{fqn} holds packed weights ({_kind(value)}); {_BEFORE}")
            if isinstance(value, torch.Tensor) and (kind := unheld(value)):
                raise CaptureError(f"{fqn} is {kind}, which stages cannot hold; {_way_out(value)}")


_BEFORE = "cut the model before it is quantized"


def _held(path: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in (*module._parameters.items(), *module._buffers.items(), *vars(module).items()):
        yield f"{path}.{name}".lstrip("."), value


def _offloads(hook: Any) -> bool:
    """Whether a hook of accelerate brings weights from elsewhere; it may be made of several."""
    brings = getattr(hook, "offload", False) is True or type(hook).__name__ == "CpuOffload"
    return brings or any(map(_offloads, getattr(hook, "hooks", ())))


def unheld(tensor: torch.Tensor) -> str:
    """A noun for a tensor that stages cannot hold; nothing for a dense one."""
    if is_lazy(tensor):
        return "not initialized yet"
    if tensor.is_nested:
        return "a nested tensor"
    if is_traceable_wrapper_subclass(tensor):
        return f"a {type(tensor).__name__} of {type(tensor).__module__.partition('.')[0]}"
    if tensor.layout is not torch.strided:
        return f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return f"a quantized tensor ({str(tensor.dtype).removeprefix('torch.')})"
    packed = any(getattr(tensor, name, None) is not None for name in ("quant_state", "SCB"))  # of bitsandbytes
    return f"a quantized tensor ({type(tensor).__name__})" if packed else ""


def _kind(packed: Any) -> str:
    return packed._type().name().rpartition(".")[2]


def _way_out(tensor: torch.Tensor) -> str:
    if is_lazy(tensor):
        return "run the model once"
    if is_traceable_wrapper_subclass(tensor) or (not tensor.is_quantized and tensor.layout is torch.strided):
        return f"{_BEFORE}, or make it dense first"
    return "make it dense first (tensor.to_dense(), or tensor.dequantize() of a quantized one)"
