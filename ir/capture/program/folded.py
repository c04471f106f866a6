"""Tensors of a program whose values were known while it was traced: constants where the values decide their size."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx.experimental import proxy_tensor
from torch.utils._mode_utils import no_dispatch

from ir.capture.program.mutation import mutates
from ir.capture.program.no_ops import is_assertion
from ir.operators import aten

_KEY = "known"


@contextmanager
def noted_values() -> Iterator[None]:
    """Inside the context, nodes whose result has a size by values keep it, where torch knows it."""
    set_meta: Any = proxy_tensor.set_meta

    def set_and_note(proxy: fx.Proxy, value: Any) -> Any:
        if isinstance(value, FakeTensor) and value.constant is not None and _has_size_by_values(proxy.node):
            with no_dispatch():
                known = value.constant.clone()
            proxy.node.meta["custom"] = {**(proxy.node.meta.get("custom") or {}), _KEY: known}
        return set_meta(proxy, value)

    with patch.object(proxy_tensor, "set_meta", set_and_note):
        yield


def fold_known(program: ExportedProgram) -> None:
    """Make constants of the results of nonzero, unique and the like that are known, and drop what nothing reads.

    In a second trace nothing would be known of them.
    """
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            program.constants.update(_folded(module))
            for node in [n for n in module.graph.nodes if is_assertion(n) and not n.users]:
                module.graph.erase_node(node)
            module.graph.eliminate_dead_code(_is_impure)
            module.recompile()


def _folded(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The constants that are made, by name."""
    made: dict[str, torch.Tensor] = {}
    may_be_changed = any(mutates(node) for node in module.graph.nodes)
    for node in list(module.graph.nodes):
        values = (node.meta.get("custom") or {}).get(_KEY)
        if values is None:
            continue
        name = f"known_{node.name}"
        made[name] = values
        module.register_buffer(name, values, persistent=False)
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
            constant.meta = dict(node.meta)
            if may_be_changed:
                constant = module.graph.call_function(aten.clone.default, (constant,))
                constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
    return made


def _has_size_by_values(node: fx.Node) -> bool:
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return _has_size_by_values(node.args[0])
    return isinstance(node.target, OpOverload) and torch.Tag.dynamic_output_shape in node.target.tags


def _is_impure(node: fx.Node) -> bool:
    target: Any = node.target
    return node.op in ("placeholder", "output") or mutates(node) or isinstance(target, HigherOrderOperator)
