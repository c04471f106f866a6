"""Modules of torch's own: the constructor `nn.Linear(768, 3072)` for a call that such a module makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from codegen.spelling.writers import Arguments, default, same
from ir.graph import Call, Param, Value
from ir.operators.facts import aten


@dataclass(frozen=True)
class TorchModule:
    """A module of torch's own in a stage: its class, what it stores, its constructor."""

    cls: str
    stored: Mapping[str, Value]
    source: str


def torch_module(call: Call, cls: str, stored: Mapping[str, Value]) -> str | None:
    """The constructor of a module of class `cls` that makes just this call with the tensors `stored`, or None."""
    if call.op is aten.batch_norm.default:
        return _batch_norm(Arguments(call), cls, stored)
    writer = _MODULES.get((cls, call.op))
    arguments = Arguments(call)
    plain = all(type(v) is Param and not v.buffer for v in stored.values())
    if writer is None or not plain or set(stored) > {"weight", "bias"} or "weight" not in stored:
        return None
    bias = arguments["bias"] if "bias" in arguments.names else None
    if arguments["weight"] is not stored["weight"] or bias is not stored.get("bias"):
        return None
    options = writer(arguments, stored["weight"])
    if options is None:
        return None
    dtype = stored["weight"].type.dtype
    if any(v.type.dtype != dtype for v in stored.values()):
        return None
    return _as_trained(f"nn.{cls}({', '.join(options + _dtype(dtype))})", stored)


def _as_trained(made: str, stored: Mapping[str, Value]) -> str | None:
    """The constructor of a module whose parameters take gradients, or take none; None where some do."""
    frozen = {v.frozen for v in stored.values() if isinstance(v, Param) and not v.buffer}
    return None if len(frozen) > 1 else f"{made}{'.requires_grad_(False)' * (True in frozen)}"


def _dtype(dtype: torch.dtype) -> list[str]:
    return [f"dtype={dtype}"] if dtype != torch.float32 else []


def _linear(a: Arguments, weight: Value) -> list[str]:
    return [str(weight.type.shape[1]), str(weight.type.shape[0]), *_bias(a)]


def _bias(a: Arguments) -> list[str]:
    return [] if isinstance(a["bias"], Value) else ["bias=False"]


def _embedding(a: Arguments, weight: Value) -> list[str] | None:
    if a["scale_grad_by_freq"] or a["sparse"]:
        return None
    padding = [] if a["padding_idx"] == -1 else [f"padding_idx={a['padding_idx']}"]
    return [*map(str, weight.type.shape), *padding]


def _layer_norm(a: Arguments, weight: Value) -> list[str]:
    shape = a["normalized_shape"]
    eps = [] if a["eps"] == 1e-5 else [f"eps={a['eps']}"]
    return [str(shape[0] if len(shape) == 1 else tuple(shape)), *eps, *_bias(a)]


def _group_norm(a: Arguments, weight: Value) -> list[str] | None:
    if not isinstance(a["bias"], Value):
        return None
    eps = [] if a["eps"] == 1e-5 else [f"eps={a['eps']}"]
    return [str(a["num_groups"]), str(weight.type.shape[0]), *eps]


def _convolution(a: Arguments, weight: Value) -> list[str]:
    out, narrow, *kernel = weight.type.shape
    options = [str(narrow * a["groups"]), str(out), f"kernel_size={_one(kernel)}"]
    for key in ("stride", "padding", "dilation", "groups"):
        usual = default(a, key)
        if not same(_one(a[key]), _one(usual)):
            options.append(f"{key}={_one(a[key])}")
    return options + _bias(a)


_TENSORS = ("weight", "bias", "running_mean", "running_var")


def _batch_norm(a: Arguments, cls: str, stored: Mapping[str, Value]) -> str | None:
    """The constructor of a `FrozenBatchNorm`, which stands for torch's own in evaluation."""
    ours = set(stored) == set(_TENSORS) and all(a[name] is value for name, value in stored.items())
    dtypes = {value.type.dtype for value in stored.values()}
    if not cls.startswith("BatchNorm") or a["training"] is not False or not ours or len(dtypes) > 1:
        return None
    eps = [] if a["eps"] == 1e-5 else [f"eps={a['eps']}"]
    made = f"{FROZEN}({', '.join([str(stored['weight'].type.shape[0]), *eps, *_dtype(dtypes.pop())])})"
    return _as_trained(made, stored)


FROZEN = "FrozenBatchNorm"  # the class that stands for nn.BatchNorm in evaluation


def _one(value: Any) -> Any:
    """`[3, 3]` as 3."""
    if not isinstance(value, (list, tuple)):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)


_MODULES: Mapping[tuple[str, Any], Callable[[Arguments, Value], list[str] | None]] = {
    ("Linear", aten.linear.default): _linear,
    ("Embedding", aten.embedding.default): _embedding,
    ("LayerNorm", aten.layer_norm.default): _layer_norm,
    ("GroupNorm", aten.group_norm.default): _group_norm,
    **{(f"Conv{n}d", getattr(aten, f"conv{n}d").default): _convolution for n in (1, 2, 3)},
}


def input_of(call: Call) -> Value:
    """The argument of a call of a module of torch's own."""
    arguments = Arguments(call)
    return arguments["indices"] if call.op is aten.embedding.default else arguments["input"]
