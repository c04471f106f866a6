"""Weights and inputs that stages can hold: dense tensors that lie in the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ir.checkpoint.files import SAFETENSORS_DTYPES
from ir.errors import CaptureError
from ir.graph import Constant, Graph, Param, State
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


def require_carried(name: str, tensor: torch.Tensor) -> None:
    """Raise CaptureError for an example input of a kind that stages cannot carry, or of which torch reads no values."""
    if kind := unheld(tensor):
        raise CaptureError(f"the example input `{name}` is {kind}, which stages cannot carry; pass a dense tensor")
    if not (tensor.is_complex() or tensor.dtype in _STORED):
        raise CaptureError(f"the example input `{name}` is {_name(tensor.dtype)}; pass its bytes, {_AS_BYTES}")


def require_storable(graph: Graph) -> None:
    """Raise CaptureError for a weight, buffer or constant of a dtype that the files of stages do not have."""
    for value in (*graph.params, *graph.states, *graph.constants):
        if (dtype := value.type.dtype) not in _STORED:
            name = _name_of(value, graph)
            parts = "its real and imaginary parts (torch.view_as_real), and join them in forward"
            way_out = parts if dtype.is_complex else f"its bytes, {_AS_BYTES}"
            raise CaptureError(
                f"{name} is {_name(dtype)}, which safetensors, the format of the stages' weights, lacks; keep {way_out}"
            )


def _name_of(value: Param | State | Constant, graph: Graph) -> str:
    """The name of a stored tensor, or the place that makes it."""
    if not isinstance(value, Constant):
        return value.fqns[0]
    reader = next((node for node in graph.nodes if value in node.operands), None)
    made = value.fqn.startswith("lifted_tensor_")  # by torch.tensor, in forward
    return f"a tensor of forward, in {reader.where}," if made and reader is not None else value.fqn


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_STORED = frozenset(SAFETENSORS_DTYPES.values())
_AS_BYTES = "tensor.view(torch.uint8), and view them as that dtype in forward"


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
