"""Operators that change a tensor in place, and when the change is nobody else's business."""

from __future__ import annotations

import torch
from torch import fx
from torch._ops import OpOverload

_QUIET = {torch.ops.aten.detach_.default}


def mutates(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable and node.target not in _QUIET


def is_private_mutation(node: fx.Node) -> bool:
    """Whether `x.relu_()` may be written `x = relu(x)`: x is fresh, has no views, and a functional twin exists."""
    changed = node.args[0] if node.args else None
    if not isinstance(changed, fx.Node) or not isinstance(node.target, OpOverload):
        return False
    return _twin(node.target) is not None and _is_fresh(changed) and not any(map(_may_alias, changed.users))


def functional_op(op: OpOverload) -> OpOverload:
    """`aten.relu_.default` -> `aten.relu.default`."""
    twin = _twin(op)
    assert twin is not None, op
    return twin


def _twin(op: OpOverload) -> OpOverload | None:
    namespace, _, name = op._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    twin = getattr(packet, op._overloadname, None) if name.endswith("_") else None
    changed = [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    same = twin is not None and [a.name for a in twin._schema.arguments] == [a.name for a in op._schema.arguments]
    return twin if same and changed == [op._schema.arguments[0].name] else None


def _is_fresh(node: fx.Node) -> bool:
    """Made by an operator that returns memory of its own."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    return (mutates(node) and is_private_mutation(node)) or not _may_alias(node)


def _may_alias(node: fx.Node) -> bool:
    """Whether a node's results may share memory with its arguments (in place on a fresh tensor is no sharing)."""
    if not isinstance(node.target, OpOverload):
        return node.op != "output"
    schema = node.target._schema
    if schema.is_mutable and node.target not in _QUIET:
        return False
    if node.target._opname in _SOMETIMES_VIEWS or "CompositeImplicitAutograd" in _kinds(node.target):
        return node.target._opname not in _NEVER_VIEWS
    return any(r.alias_info is not None for r in schema.returns)


_SOMETIMES_VIEWS = {"reshape", "contiguous", "to", "flatten", "matmul", "dropout", "type_as", "float"}
_NEVER_VIEWS = {"linear", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm", "group_norm", "instance_norm"}
_NEVER_VIEWS |= {"scaled_dot_product_attention", "softmax", "log_softmax", "gelu", "silu"}


def _kinds(op: OpOverload) -> tuple[str, ...]:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return ("CompositeImplicitAutograd",) if op.has_kernel_for_dispatch_key(key) else ()
