"""The functional form of an exported program: without in-place operators, autocast and transforms such as vmap."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram, exported_program
from torch.utils._pytree import tree_leaves, tree_map

from ir.capture.program.in_place.mutation import functional_variant, memory_of, mutates, rewritten
from ir.capture.program.in_place.plain_form import in_plain_form
from ir.capture.program.no_ops import erase_with_users, is_checked_alone, is_off, is_truth_as_number
from ir.capture.program.ties import memory_key
from ir.operators.facts import Elements, aten, rearrangement


def needs_functional_form(program: ExportedProgram) -> bool:
    """Whether the program has an observable mutation, autocast, or a transform such as torch.vmap or its indexing."""
    nodes = [n for m in _graph_modules(program) for n in m.graph.nodes if n.op == "call_function"]
    return any(_enables_autocast(n) or _is_transform(n) or (mutates(n) and rewritten(n) is None) for n in nodes)


def _graph_modules(program: ExportedProgram) -> list[fx.GraphModule]:
    """The graph of a program and those of its control flow."""
    return [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]


def functional_form(program: ExportedProgram) -> ExportedProgram:
    """The program without in-place operators.

    `run_decompositions` takes the operators that it keeps for ones that return memory of their own, unless their schema
    says otherwise.  Dropout that is off returns its argument, though, type_as() to the same dtype does, too, and einsum
    of one operand returns a view of it.
    """
    _merge_tied(program)
    _erase_checks_of_truths(program.graph)
    nodes = [n for m in _graph_modules(program) for n in m.graph.nodes]
    for node in nodes:
        if _fills_diagonal(node):
            _write_diagonal(node)
        elif is_off(node) or _is_operand(node):
            _make_alias(node, node.all_input_nodes[0])
        elif (apart := functional_variant(node)) is not None:
            _copy_into(node, *apart)
        else:
            _lead_with_ones(node)
    views = dict.fromkeys(op for op in map(_unstated_view, nodes) if op is not None)
    with patch.object(exported_program, "_get_updated_module_call_graph", _as_before, create=True):
        made = program.run_decompositions({op: partial(op._op_dk, _COMPOSITE) for op in views})
    in_plain_form(made, (m.graph for m in _graph_modules(made)))
    return made


def _copy_into(node: fx.Node, out: fx.Node, apart: OpOverload) -> None:
    """Have `copy_(out, op(…))` for an `op_(out, …)`, or an `op(…, out=out)`, whose functional variant `apart` returns
    memory that lies otherwise: `out` then lies as before."""
    given = {name: value for name, value in node.kwargs.items() if name != "out"}
    args, kwargs = tree_map(lambda a: a.meta["val"] if isinstance(a, fx.Node) else a, (node.args, given))
    with detect_fake_mode((args, kwargs)) or nullcontext():
        made = apart(*args, **kwargs)
    before = out.meta["val"]
    if (made.dtype, str(made.shape)) != (before.dtype, str(before.shape)) or str(made.stride()) == str(before.stride()):
        return
    with node.graph.inserting_before(node):
        value = node.graph.call_function(apart, node.args, given)
    value.meta = {**node.meta, "val": made}
    node.target, node.args, node.kwargs = aten.copy_.default, (out, value), {}


def _fills_diagonal(node: fx.Node) -> bool:
    """Whether a node is `x.fill_diagonal_(value)`, without a second diagonal below the first."""
    return node.target is aten.fill_diagonal_.default and not any(node.args[2:]) and not node.kwargs.get("wrap")


def _write_diagonal(node: fx.Node) -> None:
    """Have `x.diagonal().fill_(value)` for `x.fill_diagonal_(value)`, which torch refuses where `x` is a view."""
    whole, value = node.args[:2]
    assert isinstance(whole, fx.Node)
    diagonal, made = whole, whole.meta["val"]
    with node.graph.inserting_before(node):
        for _ in range(made.dim() - 1):
            diagonal, made = node.graph.call_function(aten.diagonal.default, (diagonal,)), made.diagonal()
            diagonal.meta = {**node.meta, "val": made}
    node.replace_all_uses_with(whole)
    node.target, node.args, node.kwargs = aten.fill_.Scalar, (diagonal, value), {}
    node.meta = {**node.meta, "val": made}


def _make_alias(node: fx.Node, operand: fx.Node) -> None:
    """Have the operand in place of a node that returns it; what the program returns keeps its name."""
    node.replace_all_uses_with(operand, lambda user: user.op != "output")
    node.target, node.args, node.kwargs = aten.alias.default, (operand,), {}


def _as_before(*programs: Any) -> Any:
    """The module calls of a program, whose values have other names afterwards; torch 2.11 fails at folded constants."""
    return programs[-1]


def _erase_checks_of_truths(graph: fx.Graph) -> None:
    """Erase the assertions that a boolean tensor is True: torch 2.11 cannot trace its number again."""
    for node in reversed([n for n in graph.nodes if is_truth_as_number(n) and is_checked_alone(n)]):
        erase_with_users(node)


_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _is_operand(node: fx.Node) -> bool:
    """Whether a node returns its first operand as it is, which `run_decompositions` does not know, or gets wrong.

    It takes what is written into `x.expand(...)` to be `x + (written - x)`: rounded, and NaN where `x` is infinite.
    """
    moves = rearrangement(node.target)
    expands = moves is not None and moves.elements is Elements.EXPANDED
    if not (expands or _unstated_view(node)) or not isinstance(made := node.meta["val"], torch.Tensor):
        return False
    given = node.all_input_nodes[0].meta["val"]
    lies = [(t.dtype, str(t.shape), str(t.stride()), str(t.storage_offset())) for t in (made, given)]
    return _memory(node) == _memory(node.all_input_nodes[0]) and lies[0] == lies[1]


def _lead_with_ones(node: fx.Node) -> None:
    """Make unsqueeze() of an expand() that adds first dimensions of size 1 alone: what is written into it is exact."""
    moves = rearrangement(node.target)
    if moves is None or moves.elements is not Elements.EXPANDED:
        return
    source = node.all_input_nodes[0]
    made, given = (list(map(str, n.meta["val"].shape)) for n in (node, source))
    ones = len(made) - len(given)
    if not ones or made != ["1"] * ones + given:
        return
    for _ in range(ones - 1):
        with node.graph.inserting_before(node):
            inner = node.graph.call_function(aten.unsqueeze.default, (source, 0))
        inner.meta = {**node.meta, "val": source.meta["val"].unsqueeze(0)}
        source = inner
    node.target, node.args, node.kwargs = aten.unsqueeze.default, (source, 0), {}


def _unstated_view(node: fx.Node) -> OpOverload | None:
    """The operator of a node that returns memory of an operand although its schema does not say so."""
    op = node.target
    if not isinstance(op, OpOverload) or any(r.alias_info for r in op._schema.returns):
        return None
    if not op.has_kernel_for_dispatch_key(_COMPOSITE):
        return None
    shared = _memory(node) & set().union(*map(_memory, node.all_input_nodes))
    return op if shared else None


def _memory(node: fx.Node) -> set[int]:
    """The storages of a node's results."""
    made = tree_leaves(node.meta.get("val"))
    return memory_of(t for t in made if isinstance(t, torch.Tensor))


def _merge_tied(program: ExportedProgram) -> None:
    """Have all nodes read a tied weight under one name: `run_decompositions` fails where an alias of it is written."""
    signature, stored = program.graph_signature, program.state_dict
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first: dict[Any, fx.Node] = {}
    for node in [n for n in program.graph.nodes if n.name in names and names[n.name] in stored]:
        weight = stored[names[node.name]]
        known = first.setdefault(memory_key(weight), node)
        if known is not node:
            node.replace_all_uses_with(known)
            apart = torch.empty_like(weight)
            stored[names[node.name]] = nn.Parameter(apart, False) if isinstance(weight, nn.Parameter) else apart


def _enables_autocast(node: fx.Node) -> bool:
    return isinstance(node.target, HigherOrderOperator) and "autocast" in str(node.target) and bool(node.args[2])


def _is_transform(node: fx.Node) -> bool:
    """Whether a node enters or leaves torch.vmap, jvp or grad, or calls a function of torch's that these replace."""
    module = getattr(node.target, "__module__", None)
    return module == "torch._functorch.predispatch" or str(node.target) == "flat_apply"
