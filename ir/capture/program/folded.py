"""Tensors of a program whose values were known while it was traced: constants where the values decide their size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
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

from ir.capture.program.in_place.mutation import mutates
from ir.capture.program.no_ops import is_assertion
from ir.capture.sizes.counts import HELD_ASSERTION
from ir.operators.facts import aten

_KEY = "known"


@contextmanager
def noted_values() -> Iterator[None]:
    """Inside the context, nodes keep results of sizes by values, and masks, where torch knows their values."""
    set_meta: Any = proxy_tensor.set_meta

    def set_and_note(proxy: fx.Proxy, value: Any) -> Any:
        values = value.constant if isinstance(value, FakeTensor) else None
        if values is not None and (_has_size_by_values(proxy.node) or values.dtype is torch.bool):
            with no_dispatch():
                custom = {**(proxy.node.meta.get("custom") or {}), _KEY: values.clone()}
            proxy.node.meta["custom"] = custom
        return set_meta(proxy, value)

    with patch.object(proxy_tensor, "set_meta", set_and_note):
        yield


def fold_known(program: ExportedProgram) -> None:
    """Make constants of the results of nonzero, unique and the like that are known, and of masks that choose elements.

    Drop what nothing reads, but for what is asserted.  In a second trace nothing would be known of them.
    """
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            program.constants.update(_folded(module))
            assertions = [n for n in module.graph.nodes if is_assertion(n) and n.target is not HELD_ASSERTION]
            for node in [n for n in assertions if not n.users]:
                module.graph.erase_node(node)
            module.graph.eliminate_dead_code(_is_impure)
            module.recompile()


def _folded(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The constants that are made, by name."""
    made: dict[str, torch.Tensor] = {}
    may_be_changed = any(mutates(node) for node in module.graph.nodes)

    def constant(node: fx.Node, values: torch.Tensor) -> fx.Node:
        name = f"known_{node.name}_{len(made)}"
        made[name] = values
        module.register_buffer(name, values, persistent=False)
        with module.graph.inserting_before(node):
            found = module.graph.get_attr(name)
        found.meta = {**node.meta, "val": node.meta["val"].new_empty(values.shape, dtype=values.dtype)}
        return found

    for node in list(module.graph.nodes):
        values = (node.meta.get("custom") or {}).get(_KEY)
        if values is None:
            continue
        if values.dtype is torch.bool:
            _choose(node, values, constant)
        if not _has_size_by_values(node):
            continue
        if not may_be_changed:
            node.replace_all_uses_with(constant(node, values))
        else:
            held = constant(node, values)
            with module.graph.inserting_before(node):
                copy = module.graph.call_function(aten.clone.default, (held,))
            copy.meta = dict(held.meta)
            node.replace_all_uses_with(copy)
    return made


def _choose(mask: fx.Node, values: torch.Tensor, constant: Callable[[fx.Node, torch.Tensor], fx.Node]) -> None:
    """Have operators that take the elements at a mask take those at its indices."""
    for user in [n for n in mask.users if n.target in _CHOOSING]:
        indices: Any = user.args[1]
        places = [constant(mask, found) for found in values.nonzero().unbind(1)]
        chosen = [place for index in indices for place in (places if index is mask else [index])]
        user.args = (user.args[0], chosen, *user.args[2:])


_CHOOSING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


def _has_size_by_values(node: fx.Node) -> bool:
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return _has_size_by_values(node.args[0])
    op = node.target
    return isinstance(op, OpOverload) and (torch.Tag.dynamic_output_shape in op.tags or op in _COMPOSED)


_COMPOSED = {aten.repeat_interleave.self_Tensor}  # of operators with that tag


def _is_impure(node: fx.Node) -> bool:
    target: Any = node.target
    kept = node.op in ("placeholder", "output") or target is HELD_ASSERTION
    return kept or mutates(node) or isinstance(target, HigherOrderOperator)
