"""Small graphs made by hand, so that a pass or an invariant is tested on what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ir.capture import capture
from ir.graph import Call, Constant, Graph, Node, Param, State, Value
from ir.objects.signature import Signature, Slot, Tree
from ir.sizes import Dim, TensorType
from tests.support.models.model_cases import CASES
from tests.support.seeds import made_once

aten = torch.ops.aten


def typed(*shape: Dim, dtype: torch.dtype = torch.float32) -> TensorType:
    return TensorType(shape, dtype)


def value(name: str, *shape: Dim, dtype: torch.dtype = torch.float32) -> Value:
    return Value(name, typed(*(shape or (2, 4)), dtype=dtype))


def param(*fqns: str, shape: Sequence[Dim] = (4, 4)) -> Param:
    return Param(fqns[0].replace(".", "_"), typed(*shape), fqns)


def state(fqn: str) -> State:
    return State(fqn.replace(".", "_"), typed(2, 4), (fqn,), torch.zeros(2, 4))


def relu(source: Value, name: str, **fields: Any) -> Call:
    return Call(op=aten.relu.default, args=(source,), results=(Value(name, source.type),), **fields)


def linear(source: Value, weight: Param, name: str, **fields: Any) -> Call:
    made = Value(name, typed(*source.type.shape[:-1], weight.type.shape[0]))
    return Call(op=aten.linear.default, args=(source, weight), results=(made,), **fields)


def add(left: Value, right: Value, name: str, **fields: Any) -> Call:
    return Call(op=aten.add.Tensor, args=(left, right), results=(Value(name, left.type),), **fields)


def graph(inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value], **fields: Any) -> Graph:
    """A graph whose weights and states are those that its nodes read."""
    read = dict.fromkeys(v for n in nodes for v in n.operands)
    kinds = {name: tuple(v for v in read if isinstance(v, cls)) for name, cls in _KINDS.items()}
    returns = Tree(pytree.tree_flatten(list(outputs))[1], tuple(map(Slot, range(len(outputs)))))
    arguments = {v.name: Slot(i) for i, v in enumerate(inputs)}
    leaves, spec = pytree.tree_flatten(arguments)
    signature = Signature((), Tree(spec, tuple(leaves)), returns)
    made = dict[str, Any](inputs=tuple(inputs), nodes=tuple(nodes), outputs=tuple(outputs), updates=())
    made.update(kinds, signature=signature)
    return Graph(**(made | fields))


_KINDS = {"params": Param, "constants": Constant, "states": State}


@made_once
def captured(name: str) -> Graph:
    """The graph of a model written for the purpose."""
    case = CASES[name]
    model, calls = case.build(), case.calls()
    return capture(model, calls[0].args, calls[0].kwargs, dynamic_shapes=case.dynamic)
