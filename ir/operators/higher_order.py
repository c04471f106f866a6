"""Calls of torch's higher-order operators, such as `cond` and `while_loop`, and the operator that runs them as one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import sympy
import torch
from torch._ops import HigherOrderOperator
from torch.utils._pytree import tree_leaves, tree_map

from ir.analysis.arguments import as_number, operator_arguments
from ir.graph import THIS_DEVICE, Call, Value, map_arguments
from ir.objects.signature import Slot
from ir.sizes import TensorType, in_layout

_Sizes: TypeAlias = Mapping[sympy.Symbol, Any]


@dataclass(frozen=True, eq=False)
class Body:
    """A function that a higher-order operator runs.  It reads its `inputs` and what the call captures."""

    name: str  # "true_fn"
    inputs: tuple[Value | sympy.Basic, ...]  # a size or a counter takes a place, too
    nodes: tuple[Call, ...]
    outputs: tuple[Any, ...]  # Values, sizes and numbers
    packed: bool  # whether it returns a tuple, be it of one

    def map(self, rewrite: Callable[[Call], Sequence[Call]]) -> Body:
        return replace(self, nodes=tuple(new for node in self.nodes for new in rewrite(node)))

    def run(self, given: Sequence[Any], env: Mapping[Value, Any], sizes: _Sizes, device: torch.device) -> Any:
        """The results for arguments; `env` has what is captured."""
        known: dict[Any, Any] = {**env, **dict(zip(self.inputs, given, strict=True))}
        sizes = {**sizes, **{s: n for s, n in known.items() if isinstance(s, sympy.Symbol)}}

        def number(expr: sympy.Basic) -> Any:
            return as_number(expr, sizes)

        for node in self.nodes:
            args, kwargs = operator_arguments(node, known.__getitem__, number, device)
            out = node.op(*args, **kwargs)
            known.update(zip(node.results, out if node.unpacks else [out], strict=True))
        results = tuple(_filled(out, known.__getitem__, number) for out in self.outputs)
        return results if self.packed else results[0]


@dataclass(frozen=True, eq=False)
class HigherOrder:
    """A higher-order operator with its bodies, as the program calls it.

    `arguments` are the operator's, with a Body for each function and Slots for tensors.  The tensors behind those of
    the Slots are `captured` by the bodies.  _Sizes are expressions over `symbols`.
    """

    op: HigherOrderOperator
    arguments: tuple[Any, ...]
    captured: tuple[Value, ...]
    symbols: tuple[sympy.Symbol, ...]
    results: tuple[TensorType, ...]
    layouts: tuple[tuple[int, ...], ...]  # of the results: their dimensions, the outermost in memory first
    turns: int = 1  # of a loop whose condition counts them, else 1

    @property
    def name(self) -> str:
        """The name of the operator: "cond"."""
        return self.op.name().removesuffix("_impl")

    @property
    def bodies(self) -> tuple[Body, ...]:
        return tuple(a for a in tree_leaves(self.arguments) if isinstance(a, Body))

    @property
    def needs_device(self) -> bool:
        """Whether a body makes tensors on the device of the stage."""
        args = (a for body in self.bodies for n in body.nodes for a in tree_leaves((n.args, dict(n.kwargs))))
        return any(a is THIS_DEVICE for a in args)

    def map(self, to: Callable[[Body], Body]) -> HigherOrder:
        return replace(self, arguments=tree_map(lambda a: to(a) if isinstance(a, Body) else a, self.arguments))

    def at(self, sizes: Sequence[Any]) -> HigherOrder:
        """The same with `sizes`, numbers or expressions, in place of its symbols."""
        values = {s: sympy.sympify(size, strict=True) for s, size in zip(self.symbols, sizes, strict=True)}

        def dim(arg: Any) -> Any:
            if not isinstance(arg, sympy.Basic):
                return arg
            found = arg.xreplace(values)
            return int(found) if found.is_Integer else found  # type: ignore[call-overload]

        def typed(value: Value) -> Value:
            return replace(value, type=_at(value.type, dim))

        of = {v: typed(v) for v in self._values}

        def new(arg: Any) -> Any:
            return of[arg] if isinstance(arg, Value) else dim(arg)

        def body(old: Body) -> Body:
            nodes = (replace(map_arguments(n, new), results=tuple(map(of.__getitem__, n.results))) for n in old.nodes)
            return replace(
                old, inputs=tuple(map(new, old.inputs)), nodes=tuple(nodes), outputs=tuple(map(new, old.outputs))
            )

        arguments = tree_map(lambda a: body(a) if isinstance(a, Body) else dim(a), self.arguments)
        captured, results = tuple(map(of.__getitem__, self.captured)), tuple(_at(t, dim) for t in self.results)
        return replace(self, arguments=arguments, captured=captured, symbols=(), results=results)

    @property
    def _values(self) -> Iterator[Value]:
        yield from self.captured
        for body in self.bodies:
            yield from (v for v in body.inputs if isinstance(v, Value))
            yield from (v for node in body.nodes for v in node.results)

    def run(self, tensors: Sequence[torch.Tensor], numbers: Sequence[int], device: torch.device) -> list[torch.Tensor]:
        """The tensors that the operator returns."""
        sizes, slots = dict(zip(self.symbols, numbers, strict=True)), len(tensors) - len(self.captured)
        env = dict(zip(self.captured, tensors[slots:], strict=True))

        def argument(arg: Any) -> Any:
            match arg:
                case Slot(index):
                    return tensors[index]
                case Body():
                    return lambda *given: arg.run(given, env, sizes, device)
                case sympy.Basic():
                    return as_number(arg, sizes)
            return arg

        out = self.op(*tree_map(argument, self.arguments))
        return [t if isinstance(t, torch.Tensor) else torch.tensor(0) for t in out]  # nothing reads a number

    def empty(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Results without values."""
        types = self.at(numbers).results
        plain = [torch.empty(list(t.shape), dtype=t.dtype) for t in types]  # type: ignore[arg-type]
        return [in_layout(t, layout) for t, layout in zip(plain, self.layouts, strict=True)]


def _at(type: TensorType, dim: Callable[[Any], Any]) -> TensorType:
    return TensorType(tuple(map(dim, type.shape)), type.dtype)


def _filled(out: Any, tensor: Callable[[Value], Any], number: Callable[[sympy.Basic], Any]) -> Any:
    match out:
        case Value():
            return tensor(out)
        case sympy.Basic():
            return number(out)
    return out


# ---- the operator

_KNOWN: dict[str, HigherOrder] = {}  # by their text, so that equal ones are one

_LIBRARY = torch.library.Library("stagecut", "FRAGMENT")
_LIBRARY.define(
    "higher_order(Tensor[] operands, SymInt[] sizes, str key, *, Device? device=None) -> Tensor[]",
    tags=(torch.Tag.nondeterministic_seeded,),  # a body may draw random numbers, so no stage repeats it
)
HIGHER_ORDER = torch.ops.stagecut.higher_order.default


def is_higher_order(call: Call) -> bool:
    """Whether a node runs a higher-order operator."""
    return call.op == HIGHER_ORDER


def higher_order_of(call: Call) -> HigherOrder:
    """The operator that such a node runs, with the sizes of the node."""
    return _at_sizes(call.args[2], tuple(call.args[1]))


def run_the_same(one: Call, other: Call) -> bool:
    """Whether two such nodes run the same functions at their sizes, whatever the layout of results in memory."""
    a, b = (_text(replace(higher_order_of(call), layouts=())) for call in (one, other))
    return a == b


@lru_cache(maxsize=1024)
def _at_sizes(key: str, sizes: tuple[Any, ...]) -> HigherOrder:
    return _KNOWN[key].at(sizes)


def with_inner(call: Call) -> Iterator[Call]:
    """The node, and those in the functions that it runs."""
    yield call
    if is_higher_order(call):
        yield from (inner for body in higher_order_of(call).bodies for n in body.nodes for inner in with_inner(n))


def symbols_read(call: Call) -> frozenset[sympy.Symbol]:
    """The sizes that the code of a node computes with; its types may have more."""
    if not is_higher_order(call):
        return call.symbols
    what = higher_order_of(call)
    bodies = what.bodies
    inner = (s for body in bodies for node in body.nodes for s in symbols_read(node))
    plain = (a for a in (*tree_leaves(what.arguments), *(o for b in bodies for o in b.outputs)))
    exprs = (s for a in plain if isinstance(a, sympy.Basic) for s in a.free_symbols)
    return frozenset((*inner, *exprs)) & call.symbols  # type: ignore[return-value]


def higher_order_call(
    what: HigherOrder, operands: Sequence[Value], sizes: Sequence[Any], results: tuple[Value, ...], **fields: Any
) -> Call:
    """The node that runs a higher-order operator on `operands`, those of the Slots before those captured."""
    key = key_for(what)
    what = _KNOWN[key]
    kwargs = {"device": THIS_DEVICE} if what.needs_device else {}
    return Call(op=HIGHER_ORDER, args=(list(operands), list(sizes), key), kwargs=kwargs, results=results, **fields)


def key_for(what: HigherOrder) -> str:
    """The key by which the operator finds what it runs, which is known by it from here on."""
    key = f"{what.name} {hashlib.sha256(_text(what).encode()).hexdigest()[:12]}"
    _KNOWN.setdefault(key, what)
    return key


def behind_key(key: str) -> HigherOrder:
    """The higher-order operator behind a key."""
    return _KNOWN[key]


def with_bodies(call: Call, to: Callable[[Body], Body]) -> Call:
    """The node with other bodies that compute the same types."""
    operands, sizes, key = call.args
    fields = {"where": call.where, "group": call.group, "stage": call.stage}
    return higher_order_call(_KNOWN[key].map(to), operands, sizes, call.results, **fields)


def _text(what: HigherOrder) -> str:
    """A text that is equal for calls that compute the same, whatever their values and sizes are called."""
    names: dict[Any, str] = {s: f"s{i}" for i, s in enumerate(what.symbols)}
    plain = {s: sympy.Symbol(name, integer=True, positive=True) for s, name in names.items()}

    def shown(arg: Any) -> Any:
        match arg:
            case Value():
                type = _at(arg.type, shown)
                return names.setdefault(arg, f"v{len(names)}"), str(type)
            case sympy.Basic():
                return str(arg.xreplace(plain))
            case Body(inputs=inputs, nodes=nodes, outputs=outputs, packed=packed):
                steps = [(str(n.op), tree_map(shown, (n.args, dict(n.kwargs), n.results))) for n in nodes]
                return repr((tree_map(shown, inputs), steps, tree_map(shown, outputs), packed))
        return repr(arg)

    types = [str(_at(t, shown)) for t in what.results], what.layouts
    return repr((what.op.name(), tree_map(shown, what.captured), tree_map(shown, what.arguments), types, what.turns))


@torch.library.impl(_LIBRARY, "higher_order", "CompositeExplicitAutograd")
def _run(operands: list[torch.Tensor], sizes: list[int], key: str, *, device: Any = None) -> list[torch.Tensor]:
    return _KNOWN[key].run(operands, sizes, device or torch.device("cpu"))


@torch.library.register_fake("stagecut::higher_order", lib=_LIBRARY)
def _type(operands: list[torch.Tensor], sizes: list[int], key: str, *, device: Any = None) -> list[torch.Tensor]:
    return _KNOWN[key].empty(sizes)
