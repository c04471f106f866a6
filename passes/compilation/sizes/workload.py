"""The sizes that a graph is cut for: those of its example, or a workload that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy

from ir.capture.sizes.allowed import guard_text
from ir.errors import CompileError
from ir.graph import Graph
from ir.sizes import CallSizes, hold
from ir.text.call_sizes import as_workload
from passes.options.sizes import WantedCall


def with_workload(graph: Graph, wanted: Sequence[WantedCall], made_up: bool = False) -> Graph:
    """The graph that is to be cut for these calls; sizes that one does not name are those of the example.

    A name stands for the size that each program calls so.  Without calls it is cut for the sizes of its example;
    `made_up`: whether nobody chose those.
    Raises CompileError for a name that no size has, and for sizes that the graph does not allow.
    """
    if not wanted:
        return replace(graph, made_up=made_up and bool(graph.hints))
    total = sum(call.weight for call in wanted)
    return replace(graph, workload=tuple(CallSizes(_sizes(graph, call), call.weight / total) for call in wanted))


def _sizes(graph: Graph, call: WantedCall) -> Mapping[sympy.Symbol, int]:
    named = {str(symbol): symbol for symbol in graph.hints}
    own = {(str(old), new) for program in graph.programs for new, old in program.symbols.items()}
    sizes = dict(graph.hints)
    for name, size in call.sizes.items():
        if name not in named:
            raise CompileError(f"the workload names {name}; {_sizes_there_are(named)}")
        sizes |= {symbol: size for known, symbol in own if known == name and str(symbol) not in call.sizes}
        sizes[named[name]] = size
    for symbol, size in sizes.items():
        low, high = graph.ranges[symbol]
        if not low <= size <= (high or size):
            may_be = f"{low} or more" if high is None else f"{low} to {high}"
            raise CompileError(f"the workload has {symbol}={size}; {symbol} may be {may_be}")
    for guard in graph.guards:
        if not hold([guard], sizes):
            raise CompileError(f"the workload has {as_workload(call.sizes)}; the model asks for {guard_text(guard)}")
    return sizes


def _sizes_there_are(named: Mapping[str, sympy.Symbol]) -> str:
    if named:
        return f"the sizes that may change are {', '.join(named)}"
    return "no size of this model may change: --dynamic input_ids:0=batch,1=seq lets those of an input"
