"""Stores into buffers: `index_put_` on a buffer itself, which is functional once later reads are of its result."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, OutputSpec, TensorArgument

from ir.capture.program.in_place.mutation import may_alias, mutates
from ir.capture.repeats.again import AGAIN
from ir.operators.facts import aten


def make_stores_functional(program: ExportedProgram) -> None:
    """Make `index_put` of each `index_put_` that alone changes a buffer of which there are no views.

    The buffer's new value becomes an output, as `run_decompositions` has it, which takes as long as the export.
    """
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    stores: list[tuple[str, fx.Node]] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.BUFFER and (store := _store(placeholders[spec.arg.name])) is not None:
            stores.append((str(spec.target), store))
    stores = [(name, _made_functional(store)) for name, store in stores]
    output = next(node for node in program.graph.nodes if node.op == "output")
    returned = output.args[0]
    assert isinstance(returned, (list, tuple))
    output.args = ((*(store for _, store in stores), *returned),)
    kind = OutputKind.BUFFER_MUTATION
    program.graph_signature.output_specs[:0] = [OutputSpec(kind, TensorArgument(s.name), name) for name, s in stores]


def is_store(node: fx.Node) -> bool:
    """Whether a node stores into an input of its graph, or gives it the value that it has after a repeated layer."""
    into = node.args[0] if node.args else None
    if not isinstance(into, fx.Node) or into.op != "placeholder":
        return False
    return node.target is aten.index_put_.default or (node.target is aten.copy_.default and _is_repeated(node.args[1]))


def _is_repeated(value: Any) -> bool:
    """Whether a value is one of those that a repeated layer makes."""
    return isinstance(value, fx.Node) and value.target is operator.getitem and value.args[0].target is AGAIN  # type: ignore[union-attr]


def _store(buffer: fx.Node) -> fx.Node | None:
    """The node that changes a buffer, if it is the only one and there are no views of it."""
    changes = [user for user in buffer.users if mutates(user)]
    if len(changes) != 1 or not is_store(changes[0]) or changes[0].args[0] is not buffer:
        return None
    [store] = changes
    seen = (*buffer.users, *store.users)
    return None if any(may_alias(user) or (mutates(user) and user is not store) for user in seen) else store


def _made_functional(store: fx.Node) -> fx.Node:
    """The node of a buffer's value after a store, which later nodes read from then on."""
    buffer: Any = store.args[0]
    value: Any = store if store.target is aten.index_put_.default else store.args[1]
    buffer.replace_all_uses_with(value, delete_user_cb=lambda user: store < user)
    if value is store:
        store.target = aten.index_put.default
    else:
        store.replace_all_uses_with(value)
        store.graph.erase_node(store)
    return value
