"""Programs of a graph: several graphs as one, one of them as a graph of its own, and passes over each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import sympy
import torch

from ir.analysis.bind import map_sizes, with_sizes
from ir.analysis.borders import Namer
from ir.errors import CompileError
from ir.graph import Constant, Graph, Param, Program, State, Value

_T = TypeVar("_T", bound=Hashable)
_Leaf: TypeAlias = Param | Constant | State
_Part: TypeAlias = tuple[str, Mapping[str, Any], float, Graph]
_Symbols: TypeAlias = Mapping[sympy.Symbol, sympy.Symbol]


def merged(parts: Sequence[_Part]) -> Graph:
    """One graph of several programs of a model, each given by name, condition, calls and graph.  One part is its graph.

    Params, constants and states of one name in the checkpoint are one value.  Raises CompileError where two programs
    have one name, and where a name of a weight or state stands for different tensors.
    """
    names = [name for name, *_ in parts]
    if len(set(names)) < len(names):
        raise CompileError(f"two programs are named {max(names, key=names.count)!r}")
    if len(parts) == 1:
        return parts[0][3]
    everywhere = set.intersection(*(set(graph.notes) for *_, graph in parts))
    noted = (n if n in everywhere else f"{name}: {n}" for name, _, _, graph in parts for n in graph.notes)
    return replace(_union(parts), notes=_once(noted))


def program_of(graph: Graph, index: int) -> Graph:
    """One program of a graph as a graph of its own, with the sizes named as the program knows them.

    Its workload has as many calls as the graph's, in the same order.
    """
    if not graph.programs:
        return graph
    program = graph.programs[index]
    nodes = tuple(replace(node, program=0) for node in graph.nodes if node.program == index)
    read = {v for node in nodes for v in node.operands} | {state for state, _ in program.updates}
    good_for = {s: ends for s, ends in graph.split.good_for.items() if s in program.ranges}
    alone = replace(
        graph,
        inputs=program.inputs,
        params=tuple(p for p in graph.params if p in read),
        constants=tuple(c for c in graph.constants if c in read),
        states=tuple(s for s in graph.states if s in read),
        nodes=nodes,
        outputs=program.outputs,
        updates=program.updates,
        signature=program.signature,
        hints={s: graph.hints[s] for s in program.ranges},
        workload=with_sizes(graph.workload, lambda sizes: {s: sizes[s] for s in program.ranges}),
        ranges=program.ranges,
        guards=program.guards,
        counts=program.counts,
        layouts=program.layouts,
        microbatching=program.microbatching,
        split=replace(graph.split, good_for=good_for, better=()),
        programs=(),
    )
    return _renamed(alone, program.symbols)


def by_program(graph: Graph, run: Callable[[Graph], Graph]) -> Graph:
    """The graph with `run` applied to each of its programs, for passes in which programs do not meet."""
    if not graph.programs:
        return run(graph)
    parts = [
        (program.name, program.condition, program.calls, run(program_of(graph, i)))
        for i, program in enumerate(graph.programs)
    ]
    notes = chain.from_iterable(part.notes for *_, part in parts)
    return replace(_union(parts), notes=_once(notes), split=graph.split, workload=graph.workload)


# ---- the union


def _union(parts: Sequence[_Part]) -> Graph:
    symbols = _own_symbols(parts)
    graphs = [_renamed(graph, to) for (*_, graph), to in zip(parts, symbols, strict=True)]
    graphs = _with_shared_leaves(graphs, [name for name, *_ in parts])
    programs = [
        _program(name, condition, calls, graph, {new: old for old, new in to.items()})
        for (name, condition, calls, _), graph, to in zip(parts, graphs, symbols, strict=True)
    ]
    return replace(
        graphs[0],
        inputs=_all(graph.inputs for graph in graphs),
        params=_once(_all(graph.params for graph in graphs)),
        constants=_once(_all(graph.constants for graph in graphs)),
        states=_once(_all(graph.states for graph in graphs)),
        nodes=tuple(replace(node, program=i) for i, graph in enumerate(graphs) for node in graph.nodes),
        outputs=_all(graph.outputs for graph in graphs),
        updates=_all(graph.updates for graph in graphs),
        hints={s: hint for graph in graphs for s, hint in graph.hints.items()},
        ranges={s: ends for graph in graphs for s, ends in graph.ranges.items()},
        guards=_once(_all(graph.guards for graph in graphs)),
        counts=_once(_all(graph.counts for graph in graphs)),
        modules={path: cls for graph in graphs for path, cls in graph.modules.items()},
        whole=_once(_all(graph.whole for graph in graphs)),
        separable=frozenset(chain.from_iterable(graph.separable for graph in graphs)),
        layouts=_all(graph.layouts for graph in graphs),
        programs=tuple(programs),
    )


def _program(name: str, condition: Mapping[str, Any], calls: float, graph: Graph, symbols: _Symbols) -> Program:
    return Program(
        name=name,
        condition=condition,
        inputs=graph.inputs,
        outputs=graph.outputs,
        updates=graph.updates,
        signature=graph.signature,
        layouts=graph.layouts,
        guards=graph.guards,
        counts=graph.counts,
        ranges=graph.ranges,
        symbols=symbols,
        microbatching=graph.microbatching,
        calls=calls,
    )


def _all(groups: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(groups))


def _once(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))


# ---- sizes: a symbol of one name is one symbol if its size and range are the same


def _own_symbols(parts: Sequence[_Part]) -> list[_Symbols]:
    """For each program, the symbols that must have another name in the union, and that name."""
    namer = Namer({str(s) for *_, graph in parts for s in graph.hints})
    known: dict[sympy.Symbol, Any] = {}
    found: list[_Symbols] = []
    for name, _, _, graph in parts:
        to: dict[sympy.Symbol, sympy.Symbol] = {}
        for symbol, size in graph.hints.items():
            ends = graph.ranges[symbol]
            if known.setdefault(symbol, (size, ends)) != (size, ends):
                to[symbol] = sympy.Symbol(namer(f"{symbol}_{name}"), integer=True, positive=True)
        found.append(to)
    return found


def _renamed(graph: Graph, symbols: _Symbols) -> Graph:
    """The graph with other names of sizes."""
    if not symbols:
        return graph

    def to(size: Any) -> Any:
        return size.xreplace(symbols) if isinstance(size, sympy.Basic) else size

    return replace(
        map_sizes(graph, to),
        hints={to(s): hint for s, hint in graph.hints.items()},
        workload=with_sizes(graph.workload, lambda sizes: {to(s): size for s, size in sizes.items()}),
        ranges={to(s): ends for s, ends in graph.ranges.items()},
        guards=tuple(map(to, graph.guards)),
        microbatching=replace(graph.microbatching, size=to(graph.microbatching.size)),
        split=replace(graph.split, good_for={to(s): ends for s, ends in graph.split.good_for.items()}),
    )


# ---- params, constants and states: one value for all programs


def _with_shared_leaves(graphs: Sequence[Graph], names: Sequence[str]) -> list[Graph]:
    """The graphs with one value for what has one name in the checkpoint.

    What one program changes is a state in all.  A constant of another program may have the same name by chance, as
    those do that stand in code: it gets a name of its own.
    """
    taken = {v.name for graph in graphs for v in (*graph.inputs, *graph.producer)}
    shared = _Shared(Namer(taken | {str(s) for graph in graphs for s in graph.hints}))
    for graph in graphs:
        for state in graph.states:
            if state.fqns[0] not in shared.known:
                shared.add(state)
    mapped = []
    for graph, name in zip(graphs, names, strict=True):
        to: dict[Value, _Leaf] = {
            leaf: shared.find(leaf, name) for leaf in (*graph.params, *graph.constants, *graph.states)
        }
        mapped.append(_with_leaves(graph, to))
    return mapped


@dataclass
class _Shared:
    """The leaves of all programs by their first name in the checkpoint."""

    namer: Namer
    known: dict[str, _Leaf] = field(default_factory=dict)

    def add(self, leaf: _Leaf) -> _Leaf:
        new = self.namer(leaf.name)
        self.known[_fqn(leaf)] = leaf if new == leaf.name else replace(leaf, name=new)
        return self.known[_fqn(leaf)]

    def find(self, leaf: _Leaf, program: str) -> _Leaf:
        """Raises CompileError where the name in the checkpoint is taken by another tensor."""
        known = self.known.get(_fqn(leaf))
        if known is None:
            return self.add(leaf)
        if _same(known, leaf):
            return known
        if not isinstance(leaf, Constant):
            raise CompileError(f"{_fqn(leaf)} is {known.type} in one program, and {leaf.type} in {program}")
        fqn = next(name for i in range(1, len(self.known) + 2) if (name := f"{leaf.fqn}_{i}") not in self.known)
        return self.add(replace(leaf, fqn=fqn))


def _fqn(leaf: _Leaf) -> str:
    return leaf.fqn if isinstance(leaf, Constant) else leaf.fqns[0]


def _same(a: _Leaf, b: _Leaf) -> bool:
    """Whether two leaves of one name are one tensor."""
    first, second = getattr(a, "data", None), getattr(b, "data", None)
    if a.type != b.type or (first is None) != (second is None):
        return False
    return first is second or torch.equal(first, second)  # type: ignore[arg-type]


def _with_leaves(graph: Graph, to: Mapping[Value, _Leaf]) -> Graph:
    """The graph with other leaves, which may be of another kind than those in their place."""
    found = _once(to.values())
    mapped = graph.map_values(lambda v: to.get(v, v))
    return replace(
        mapped,
        params=tuple(leaf for leaf in found if isinstance(leaf, Param)),
        constants=tuple(leaf for leaf in found if isinstance(leaf, Constant)),
        states=tuple(leaf for leaf in found if isinstance(leaf, State)),
    )
