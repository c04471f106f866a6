"""Graph to text, one line per node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch

from ir.cost import UNKNOWN
from ir.graph import Call, Graph, Node, Transfer, Value


def print_graph(graph: Graph) -> str:
    lines = [f"graph({', '.join(f'{v.name}: {v.type}' for v in graph.inputs)}):"]
    lines += [f"  where {s} in {_range(*bounds)}, for example {graph.hints[s]}" for s, bounds in graph.ranges.items()]
    lines += [f"  where {guard}" for guard in graph.guards]
    lines += [f"  param {p.name}: {p.type}  # {', '.join(p.fqns)}" for p in graph.params]
    lines += [f"  constant {c.name}: {c.type}  # {c.fqn}" for c in graph.constants]
    lines += [f"  state {s.name}: {s.type}  # {', '.join(s.fqns)}" for s in graph.states]
    module = None
    for node in graph.nodes:
        if node.where.module != module:
            module = node.where.module
            lines.append(f"  # {module or 'the model'}")
        lines.append(f"  {print_node(node)}")
    lines += [f"  {state.name} <- {value.name}" for state, value in graph.updates]
    lines.append(f"  return {', '.join(v.name for v in graph.outputs)}")
    return "\n".join(lines)


def print_node(node: Node) -> str:
    results = ", ".join(f"{v.name}: {v.type}" for v in node.results)
    match node:
        case Call():
            text = f"{results} = {op_name(node)}({print_args(node.args, node.kwargs)})"
        case Transfer():
            text = f"{results} = transfer({node.value.name}, {node.src} -> {node.stage})"
    notes = [f"stage={node.stage}"] if node.stage else []
    if node.cost != UNKNOWN:
        notes.append(f"flops={node.cost.flops} bytes={node.cost.bytes}")
    if node.group:
        notes.append(f"group={node.group}")
    if node.cheap:
        notes.append("cheap")
    return f"{text}  # {' '.join(notes)}" if notes else text


def op_name(node: Call) -> str:
    """`aten.linear`, as people call it: the overload only where it is not the default."""
    return str(node.op).removesuffix(".default")


def print_args(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    return ", ".join([*map(_arg, args), *(f"{k}={_arg(v)}" for k, v in kwargs.items())])


def _arg(arg: object) -> str:
    match arg:
        case Value():
            return arg.name
        case list() | tuple():
            return f"[{', '.join(map(_arg, arg))}]"
        case sympy.Basic() | torch.dtype():
            return str(arg).removeprefix("torch.")
        case _:
            return repr(arg)


def _range(low: int, high: int | None) -> str:
    return f"[{low}, {'inf' if high is None else high}]"
