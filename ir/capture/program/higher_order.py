"""Higher-order operators of an exported program, such as `cond`, as one node with the functions that they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch.utils._pytree import tree_leaves, tree_map

from ir.capture.diagnosis import NotExported
from ir.capture.program.trips import trips
from ir.graph import Call, Param, State, Value
from ir.location import Where
from ir.objects.signature import Slot
from ir.operators.facts import aten
from ir.operators.higher_order import Body, HigherOrder, higher_order_call

READABLE = {"cond", "while_loop", "scan", "map_impl", "flex_attention", "associative_scan"}
"""Operators whose functions a node can hold: they read their arguments alone and change none."""


@dataclass(frozen=True)
class ReadBody:
    """The body of a function, as its module is read, with a name for each argument: `read(module, name, names)`."""

    module: fx.GraphModule
    name: str
    arguments: tuple[str, ...]


def is_readable(node: fx.Node) -> bool:
    """Whether a node can hold the functions that its operator runs."""
    return isinstance(node.target, HigherOrderOperator) and node.target.name() in READABLE and not node.kwargs


def read_higher_order(
    node: fx.Node,
    argument: Callable[[Any], Any],
    body: Callable[[ReadBody], Body],
    results: tuple[Value, ...],
    producer: Mapping[Value, Call],
    hints: Mapping[sympy.Symbol, int],
    where: Where,
) -> Call:
    """The call of a higher-order operator: `argument` reads what it is given, `body` a function that it runs."""
    op = node.target
    assert isinstance(op, HigherOrderOperator)
    given = tree_map(argument, tuple(node.args), is_leaf=lambda a: isinstance(a, fx.Node))
    operands = list(dict.fromkeys(a for a in tree_leaves(given) if isinstance(a, Value)))
    names = [_wish(a) for a in tree_leaves(_behind_functions(given))]

    def part(arg: Any, fx_arg: Any) -> Any:
        if isinstance(arg, fx.GraphModule):
            _refuse_assumed_sizes(arg, where)
            return body(ReadBody(arg, _name(str(fx_arg.target), op), _parameters(arg, str(fx_arg.target), names)))
        return Slot(operands.index(arg)) if isinstance(arg, Value) else arg

    arguments = _paired(part, given, tuple(node.args))
    captured = tuple(dict.fromkeys(_captured(arguments)))
    types = tuple(v.type for v in (*operands, *captured, *results))
    used = {s for a in (*_sizes(arguments), *(d for t in types for d in t.shape)) for s in _symbols(a)}
    symbols = tuple(sorted(used & hints.keys(), key=str))
    turns = trips(op, arguments, operands, producer, hints)
    layouts = tuple(map(_layout, node.meta["val"]))
    what = HigherOrder(op, arguments, captured, symbols, tuple(v.type for v in results), layouts, turns)
    return higher_order_call(what, [*operands, *captured], symbols, results, where=where)


def _layout(result: Any) -> tuple[int, ...]:
    """The dimensions of a result, the outermost in memory first."""
    if not isinstance(result, torch.Tensor):
        return ()
    strides = [s.node.hint or 0 if isinstance(s, torch.SymInt) else s for s in result.stride()]
    return tuple(sorted(range(result.dim()), key=lambda d: -strides[d]))


def _refuse_assumed_sizes(module: fx.GraphModule, where: Where) -> None:
    """Raise NotExported for a size inside a function that hangs on a counter, and that torch takes for another number.

    torch assumes so where a slice is broadcast, and asserts it at run time.
    """
    for node in module.graph.nodes:
        text = str(node.args[1]) if node.target is aten._assert_scalar.default and len(node.args) > 1 else ""
        if assumed := re.search(r"expression Eq\(u\d+, (\d+)\)", text):
            raise NotExported(
                f"a size inside of a function hangs on values, and torch takes it to be {assumed[1]}",
                where,
                "select one element, x.select(dim, i), in place of a slice that moves",
            )


def _paired(part: Callable[[Any, Any], Any], given: Any, written: Any) -> Any:
    """`part` of each leaf of `given` and of what stands for it among the node's arguments."""
    if isinstance(given, (list, tuple)):
        parts = [_paired(part, g, w) for g, w in zip(given, written, strict=True)]
        return parts if isinstance(given, list) else tuple(parts)
    if isinstance(given, dict):
        return {k: _paired(part, v, written[k]) for k, v in given.items()}
    return part(given, written)


def _wish(arg: Any) -> str:
    """The name of a parameter for an argument; of a weight the end of its own, `fc_bias` of layers.3.fc.bias."""
    if isinstance(arg, (Param, State)):
        return "_".join(part for part in arg.fqns[0].split(".")[-2:] if part.isidentifier())
    return arg.name if isinstance(arg, Value) else "count"


def _behind_functions(given: Sequence[Any]) -> list[Any]:
    """The arguments behind the last function: in that order the functions take them."""
    last = max(i for i, a in enumerate(given) if isinstance(a, fx.GraphModule))
    return list(given[last + 1 :])


def _name(target: str, op: HigherOrderOperator) -> str:
    """The name of a function: `true_fn` of true_graph_0, `cond_fn` of while_loop_cond_graph_0."""
    plain = re.sub(r"(_graph)?_?\d+$", "", target.rpartition(".")[2])
    return {"sdpa_score": "score_mod", "sdpa_mask": "mask_mod"}.get(plain, f"{plain.removeprefix(f'{op.name()}_')}_fn")


_POSITIONS = ("b", "h", "q_idx", "kv_idx")
_OF_SCORES = {"sdpa_score": ("score", *_POSITIONS), "sdpa_mask": _POSITIONS}


def _parameters(module: fx.GraphModule, target: str, given: Sequence[str]) -> tuple[str, ...]:
    """Names for a function's arguments: those of what the operator is given, where each has a place of its own."""
    count = sum(n.op == "placeholder" for n in module.graph.nodes)
    known = next((names for stem, names in _OF_SCORES.items() if target.startswith(stem)), ())
    if known:
        return (*known, *(f"buffer_{i}" for i in range(count - len(known))))
    return tuple(given) if len(given) == count else tuple(f"arg_{i}" for i in range(count))


def _captured(arguments: Any) -> Iterator[Value]:
    """The values that bodies read and neither make nor are given."""
    for body in (a for a in tree_leaves(arguments) if isinstance(a, Body)):
        own = {v for v in (*body.inputs, *(r for n in body.nodes for r in n.results)) if isinstance(v, Value)}
        read = (*(v for n in body.nodes for v in n.operands), *(v for v in body.outputs if isinstance(v, Value)))
        yield from (v for v in read if v not in own)


def _sizes(arguments: Any) -> Iterator[Any]:
    """All arguments of the operator and of the nodes of its bodies, and the sizes of what those make."""
    for arg in tree_leaves(arguments):
        if not isinstance(arg, Body):
            yield arg
            continue
        yield from (*arg.inputs, *arg.outputs)
        made = (*arg.inputs, *(v for n in arg.nodes for v in n.results))
        yield from (d for v in made if isinstance(v, Value) for d in v.type.shape)
        yield from (a for n in arg.nodes for a in tree_leaves((n.args, dict(n.kwargs))))


def _symbols(arg: Any) -> Iterator[sympy.Symbol]:
    if isinstance(arg, sympy.Basic):
        yield from (s for s in arg.free_symbols if isinstance(s, sympy.Symbol))
