"""Notes on what depends on the layout of tensors in memory, and not on their elements alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

import sympy
import torch
from torch import fx, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map

from ir.capture.paths import in_library, is_torch_file, short_path
from ir.capture.program.in_place.mutation import changed_by, makes_number, may_alias, memory_of, mutates
from ir.capture.sizes.questions import Question
from ir.capture.source_lines.where import where_of
from ir.operators.facts import BY_ADDRESS, aten_name

_OF_EXAMPLE = "stages compute what the model does for the example's layout"
_QUESTIONS = ("stride", "is_contiguous", "storage_offset")


@dataclass(frozen=True)
class Layouts:
    """Facts on layouts that an export showed without a node for them."""

    as_they_are: list[torch.UntypedStorage] = field(default_factory=list)  # of what contiguous() returned as it is
    asked: list[str] = field(default_factory=list)  # a note for each question of the user's code

    def notes(self, program: ExportedProgram) -> Iterator[str]:
        """The notes on these, and on the nodes of a program."""
        yield from self.asked
        unseen = {storage._cdata for storage in self.as_they_are}
        for write, node in _undecided(program.graph.nodes, unseen):
            name = "contiguous" if node is None else _name(node)
            yield (
                f"{name}() returns a view or a copy, by the layout of what it is given, and forward changes the "
                f"memory, in {where_of(write)}: {_OF_EXAMPLE}"
            )
        names = set(program.graph_signature.user_inputs)
        inputs = {n for n in program.graph.nodes if n.name in names}
        for node in program.graph.nodes:
            if node.target in BY_ADDRESS and not inputs.isdisjoint(_sharing(node)):
                yield f"{_name(node)}() reads an input's memory by addresses, in {where_of(node)}: {_OF_EXAMPLE}"


def about_copies(program: ExportedProgram) -> Iterator[Question]:
    """The question of each copy that might be a view whether a dimension is 1, where it then shares changed memory.

    What is a view where all sizes are 2 or more is one at 1, too.
    """
    for write, node in _undecided(program.graph.nodes):
        if node is None or _is_view(node):
            continue
        where = where_of(write)
        for dim, size in enumerate(node.all_input_nodes[0].meta["val"].shape):
            if isinstance(size, torch.SymInt) and _is_view_at_one(node, dim):
                yield Question(sympy.Eq(size.node.expr, 1), sympy.false, f"{where.file}:{where.line}", direct=True)


def _is_view(node: fx.Node) -> bool:
    """Whether a node returns memory of its first operand."""
    return bool(memory_of([node.meta["val"]]) & memory_of([node.all_input_nodes[0].meta["val"]]))


def _is_view_at_one(node: fx.Node, dim: int) -> bool:
    """Whether a node returns a view where a dimension of its operand is 1; also where that cannot be told."""
    given = node.all_input_nodes[0].meta["val"]
    one: Any = given.shape[dim]
    sizes = {**one.node.shape_env.backed_var_to_val, one.node.expr: 1}

    def size(value: Any) -> Any:
        return int(value.node.expr.xreplace(sizes)) if isinstance(value, torch.SymInt) else value

    try:
        strided = torch.empty_strided(tuple(map(size, given.shape)), tuple(map(size, given.stride())), device="meta")
        args, kwargs = tree_map(
            lambda a: size(a.meta["val"]) if isinstance(a, fx.Node) else a, (node.args, node.kwargs)
        )
        made = node.target(strided, *args[1:], **kwargs)  # type: ignore[operator]
        return bool(memory_of([strided]) & memory_of([made]))
    except Exception:  # sizes that depend on values, or a shape that is stated for another size
        return True


@contextmanager
def layouts_watched() -> Iterator[Layouts]:
    """Collect what code does with the layouts of tensors inside the context."""
    layouts = Layouts()
    with ExitStack() as patches:
        patches.enter_context(patch.object(torch.Tensor, "contiguous", _contiguous(layouts)))
        for name in _QUESTIONS:
            patches.enter_context(patch.object(torch.Tensor, name, _question(name, layouts)))
        yield layouts


def _contiguous(layouts: Layouts) -> Callable[..., torch.Tensor]:
    contiguous = torch.Tensor.contiguous

    @wraps(contiguous)  # torch gives tensors of subclasses the function that it finds under the name
    def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = contiguous(tensor, *args, **kwargs)
        if made is tensor:
            layouts.as_they_are.extend([] if is_functorch_wrapped_tensor(tensor) else [tensor.untyped_storage()])
        return made

    return watched


def _question(name: str, layouts: Layouts) -> Callable[..., Any]:
    """A method of tensors that notes where the user's own code calls it for one that is no parameter."""
    ask = getattr(torch.Tensor, name)

    def watched(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        code, line = sys._getframe(1).f_code, sys._getframe(1).f_lineno
        known = is_torch_file(code.co_filename) or in_library(code.co_filename) or isinstance(tensor, nn.Parameter)
        if not known:
            layouts.asked.append(f"forward asks for {name}() at {short_path(code.co_filename)}:{line}: {_OF_EXAMPLE}")
        return ask(tensor, *args, **kwargs)

    return watched


def _undecided(nodes: Iterable[fx.Node], unseen: Collection[int] = ()) -> Iterator[tuple[fx.Node, fx.Node | None]]:
    """Changes of memory, each with a node that returns a view of it or a copy, by the layout of what it is given.

    `unseen`: the memory of tensors that contiguous() returned as they are, which leaves no node.
    """
    groups: dict[fx.Node, list[fx.Node]] = {}  # of the nodes that were looked at, those that may share memory with them
    for write in filter(mutates, nodes):
        for changed in changed_by(write):
            if changed not in groups:
                shared = list(_sharing(changed))
                groups |= dict.fromkeys(shared, shared if any(map(_may_lie_otherwise, shared)) else [])
            either = (n for n in groups[changed] if _name(n) in _EITHER and n < write)
            node = next((n for n in either if _is_observed(n, write, changed, groups[changed])), None)
            if node is not None or (groups[changed] and memory_of([changed.meta["val"]]) & set(unseen)):
                yield write, node
                break


def _is_observed(node: fx.Node, write: fx.Node, changed: fx.Node, shared: Sequence[fx.Node]) -> bool:
    """Whether a write shows if `node`, which returns a view or a copy, returns a view.

    A write through the view shows in what it is a view of, if that is read later or outlives the call; any other write
    shows in the view.
    """
    if not _leads_to(node, changed):
        return _read_after(node, write)
    beside = (n for n in shared if not _leads_to(node, n))
    return any(n.op == "placeholder" or _read_after(n, write, but=node) for n in beside)


def _leads_to(node: fx.Node, view: fx.Node) -> bool:
    """Whether a tensor is a view of what a node returns, or that itself."""
    return node is view or (may_alias(view) and any(_leads_to(node, n) for n in view.all_input_nodes))


def _read_after(node: fx.Node, write: fx.Node, but: fx.Node | None = None) -> bool:
    """Whether the result of a node, or a view of it besides `but`, is read after a write."""
    others = (u for u in node.users if u is not but)
    return any(write < u or (may_alias(u) and _read_after(u, write, but)) for u in others)


_EITHER = {"reshape", "reshape_as", "flatten", "ravel", "contiguous"}


def _name(node: fx.Node) -> str:
    return aten_name(node.target) if isinstance(node.target, OpOverload) else ""


def _sharing(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes whose results may share memory with those of a node, itself among them."""
    waiting, seen = [node], {node}
    while waiting:
        node = waiting.pop()
        yield node
        near = [n for n in node.users if may_alias(n)] + (node.all_input_nodes if may_alias(node) else [])
        waiting += [n for n in near if n not in seen and not makes_number(n)]
        seen.update(near)


def _may_lie_otherwise(node: fx.Node) -> bool:
    """Whether a node is an input, or lies in memory as one may: the results of operators on tensors often do."""
    return node.op == "placeholder" or (not may_alias(node) and bool(node.all_input_nodes))
