"""In-place operators, and when the mutation cannot be observed and may be made functional."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ir.capture.diagnosis import NotExported
from ir.capture.source_lines.where import where_of
from ir.operators.facts import NEVER_VIEWS, aten, aten_name, is_composite, rearrangement

_QUIET = {aten.detach_.default}


def mutates(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable and node.target not in _QUIET


def refuse_overlapping_writes(nodes: Iterable[fx.Node]) -> None:
    """Raise NotExported for a change of a tensor of which several elements share memory, as those of expand() do.

    Made functional, such a change would be one of a single element.
    """
    for node in filter(mutates, nodes):
        if any(map(_overlaps_itself, written_by(node))):
            raise NotExported(
                "it writes to a tensor whose elements share memory, as those of expand() and unfold() do",
                where_of(node),
                "clone() the tensor before it is written to",
            )


def refuse_exchanged_memory(nodes: Iterable[fx.Node]) -> None:
    """Raise NotExported for a tensor that is given the memory of another: made functional, torch crashes."""
    for node in nodes:
        if isinstance(node.target, OpOverload) and node.target.overloadpacket is aten.set_:
            raise NotExported("it gives a tensor the memory of another one", where_of(node), WRITE_IN_PLACE)


WRITE_IN_PLACE = "write into the tensor that is there, tensor[...] = value"


def inputs_written(program: ExportedProgram) -> list[int]:
    """The numbers of the user's inputs in whose memory a node writes, also through detach()."""
    written = memory_of(t for node in filter(mutates, program.graph.nodes) for t in written_by(node))
    placeholders = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    values = [placeholders.get(s.arg.name) for s in specs]
    return [i for i, v in enumerate(values) if isinstance(v, torch.Tensor) and memory_of([v]) & written]


def memory_of(tensors: Iterable[torch.Tensor]) -> set[int]:
    """The storages of tensors; those inside a vmap have none."""
    return {t.untyped_storage()._cdata for t in tensors if not is_functorch_wrapped_tensor(t)}


def written_by(node: fx.Node) -> Iterator[torch.Tensor]:
    """The tensors that an in-place operator changes."""
    return (changed.meta["val"] for changed in changed_by(node))


def changed_by(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes whose tensors an in-place operator changes: also those that are given as `out`."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: value for a, value in zip(arguments, node.args, strict=False)} | node.kwargs
    for argument in arguments:
        value = given.get(argument.name) if argument.alias_info and argument.alias_info.is_write else None
        if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor):
            yield value


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements of a tensor may lie at one address, at the sizes of the example.

    False where these depend on values: such a size is refused for itself.
    """
    hints = [(hint(step), hint(size)) for step, size in zip(tensor.stride(), tensor.shape, strict=True)]
    known = [(step, size) for step, size in hints if step is not None and size is not None]
    if len(known) < len(hints):
        return False
    last = 0  # address of the last element, over the dimensions so far
    for step, size in sorted(known):
        if size > 1 and step <= last:
            return True
        last += step * (size - 1)
    return False


def hint(size: int | torch.SymInt) -> int | None:
    """A size in the example, without a guard on it; None if it depends on values."""
    if isinstance(size, int):
        return size
    known = size.node.shape_env.backed_var_to_val
    return int(size.node.expr.xreplace(known)) if size.node.expr.free_symbols <= known.keys() else None


@dataclass(frozen=True)
class Rewrite:
    """The functional form of an in-place change: from then on `changed` is `op(*args)`."""

    changed: fx.Node
    op: OpOverload
    args: tuple[Any, ...]


def rewritten(node: fx.Node) -> Rewrite | None:
    """`x = relu(x)` for `x.relu_()`, `x = slice_scatter(x, y, …)` for `x[…].copy_(y)`; None if it may be observed.

    It cannot be if `x` has memory of its own, and no view of it made before the change is read after it.
    """
    changed = node.args[0] if node.args else None
    if not isinstance(changed, fx.Node) or not isinstance(node.target, OpOverload):
        return None
    rewrite = _scatter(node, changed) if node.target is aten.copy_.default else _twinned(node, changed)
    private = rewrite is not None and _is_fresh(rewrite.changed) and not _outlived(rewrite.changed, node)
    return rewrite if private else None


def _twinned(node: fx.Node, changed: fx.Node) -> Rewrite | None:
    assert isinstance(node.target, OpOverload)
    twin = functional(node.target)
    return None if twin is None else Rewrite(changed, twin, node.args)


def _scatter(copy: fx.Node, view: fx.Node) -> Rewrite | None:
    if not _fills(copy, view):
        return None
    whole, *where = view.args
    while isinstance(whole, fx.Node) and _is_whole_slice(whole):
        whole = whole.args[0]
    if not isinstance(whole, fx.Node):
        return None
    return Rewrite(whole, aten.slice_scatter.default, (whole, copy.args[1], *where))


def _fills(copy: fx.Node, view: fx.Node) -> bool:
    """Whether `view.copy_(source)` is the only use of a slice, and neither broadcasts nor casts."""
    source = copy.args[1]
    if view.target is not aten.slice.Tensor or len(view.users) > 1 or copy.users or not isinstance(source, fx.Node):
        return False
    into, given = view.meta["val"], source.meta["val"]
    return into.dtype == given.dtype and into.dim() == given.dim() and all(map(_same, into.shape, given.shape))


def _is_whole_slice(node: fx.Node) -> bool:
    """Whether a node is `x[:]` with one user: Python's `x[:, 1:]` is a slice of such a slice."""
    if node.target is not aten.slice.Tensor or len(node.users) > 1:
        return False
    _, _, start, end, step = (*node.args, *(0, None, None, 1)[len(node.args) - 1 :])
    return bool(start in (0, None) and end in (sys.maxsize, None) and step == 1)


def _same(a: int | torch.SymInt, b: int | torch.SymInt) -> bool:
    return str(a) == str(b)  # comparing symbols would add a guard


def _outlived(tensor: fx.Node, change: fx.Node) -> bool:
    """Whether a view of a tensor, made before a change, is read after it."""
    views = [u for u in tensor.users if u < change and u is not change.args[0] and may_alias(u)]
    return any(not u < change or _outlived(v, change) for v in views for u in v.users)


def functional(op: OpOverload) -> OpOverload | None:
    """The functional variant of an in-place operator: `relu` for `relu_`; None if there is none."""
    namespace, _, name = op._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    twin = getattr(packet, op._overloadname, None) if name.endswith("_") else None
    changed = [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    same = twin is not None and [a.name for a in twin._schema.arguments] == [a.name for a in op._schema.arguments]
    return twin if same and changed == [op._schema.arguments[0].name] else None


def functional_variant(node: fx.Node) -> tuple[fx.Node, OpOverload] | None:
    """The operand that a node writes to, and the variant of its operator that returns it; None where there is none."""
    if not mutates(node) or not isinstance(op := node.target, OpOverload):
        return None
    out = node.kwargs.get("out", node.args[0] if node.args else None)
    variant = _without_out(op) if "out" in node.kwargs else functional(op)
    drawn = torch.Tag.nondeterministic_seeded in op.tags
    return None if variant is None or drawn or not isinstance(out, fx.Node) else (out, variant)


def _without_out(op: OpOverload) -> OpOverload | None:
    """The variant of an operator that returns what this one writes to its `out`; None where there is none."""
    packet = op.overloadpacket
    names = [a.name for a in op._schema.arguments if a.name != "out"]
    variants = (getattr(packet, name) for name in packet.overloads())
    alike = (v for v in variants if not v._schema.is_mutable and [a.name for a in v._schema.arguments] == names)
    return next(alike, None)


def _is_fresh(node: fx.Node) -> bool:
    """Whether a node's result has memory of its own."""
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return _is_fresh(node.args[0])
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    return (mutates(node) and rewritten(node) is not None) or not may_alias(node)


def may_alias(node: fx.Node) -> bool:
    """Whether a node's results may share memory with its arguments; in-place changes of fresh memory do not count."""
    if makes_number(node):
        return False
    if not isinstance(node.target, OpOverload):
        return node.op != "output"
    schema = node.target._schema
    if schema.is_mutable and node.target not in _QUIET:
        return False
    if node.target is aten.to.dtype and node.meta["val"].dtype != node.args[0].meta["val"].dtype:  # type: ignore[union-attr]
        return False
    if (moves := rearrangement(node.target)) is not None:
        return moves.may_alias
    if is_composite(node.target):
        if aten_name(node.target) == "einsum":
            return len(node.all_input_nodes) == 1  # of one tensor it may be a view
        return aten_name(node.target) not in NEVER_VIEWS  # nothing is known of the operators that it is made of
    return any(r.alias_info is not None for r in schema.returns)


def makes_number(node: fx.Node) -> bool:
    """Whether a node makes a size or another number, which lies in no tensor's memory."""
    return isinstance(node.meta.get("val"), _NUMBERS)


_NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
