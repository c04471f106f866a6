"""Text of a graph, one line per node: what dumps, tooltips and errors show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch

from ir.cost import UNKNOWN, Split
from ir.graph import Call, Graph, Node, Program, Transfer, Value
from ir.microbatching import Microbatching
from ir.operators.higher_order import Body, higher_order_of, is_higher_order
from ir.text.call_sizes import format_mix, format_share, format_sizes
from ir.text.units import format_seconds


def print_graph(graph: Graph) -> str:
    """The dump of a graph: inputs and sizes, what passes said of the whole, what is stored, the nodes, the outputs.

    Of several programs, what they share comes first, then each with its condition.
    """
    shared = [*_facts(graph), *_stored(graph)]
    if graph.programs:
        programs = (_program(graph, i) for i in range(len(graph.programs)))
        return "\n".join(["graph:", *shared, *(line for lines in programs for line in lines)])
    return "\n".join(
        [f"graph({_declared(graph.inputs)}):", *_sizes(graph, graph), *shared, *_run(graph.nodes, graph)],
    )


def _program(graph: Graph, index: int) -> Iterator[str]:
    program = graph.programs[index]
    yield f"program {program.name}({_declared(program.inputs)}):"
    yield from (f"  when {name} = {json.dumps(value)}" for name, value in program.condition.items())
    if program.calls != 1:
        yield f"  called {program.calls:g} times"
    yield from _sizes(graph, program)
    if program.microbatching != Microbatching():
        yield f"  {_microbatches(program)}"
    yield from _run([node for node in graph.nodes if node.program == index], program)


def _declared(values: Sequence[Value]) -> str:
    return ", ".join(f"{v.name}: {v.type}" for v in values)


def _sizes(graph: Graph, program: Graph | Program) -> Iterator[str]:
    for symbol, ends in program.ranges.items():
        yield f"  where {symbol} in {_range(*ends)}, for example {graph.hints[symbol]}"
    yield from (f"  where {condition}" for condition in (*program.guards, *program.counts))


def _stored(graph: Graph) -> Iterator[str]:
    yield from (f"  param {p.name}: {p.type}  # {', '.join(p.fqns)}{' frozen' * p.frozen}" for p in graph.params)
    yield from (f"  constant {c.name}: {c.type}  # {c.fqn}" for c in graph.constants)
    yield from (f"  state {s.name}: {s.type}  # {', '.join(s.fqns)}" for s in graph.states)


def _run(nodes: Sequence[Node], program: Graph | Program) -> Iterator[str]:
    yield from (f"  {line}" for _, line in _lines(nodes))
    yield from (f"  {state.name} <- {value.name}" for state, value in program.updates)
    yield f"  return {', '.join(v.name for v in program.outputs)}"


def print_around(graph: Graph, culprit: Node, reach: int = 2) -> str:
    """The lines of the dump around a node, which is marked with `>`: `reach` nodes before it and as many after it.

    Empty if the graph has no such node.
    """
    nodes = [node for node in graph.nodes if node.program == culprit.program]
    at = [i for i, node in enumerate(nodes) if node.results[0].name == culprit.results[0].name]
    if not at:
        return ""
    marked = nodes[at[-1]]
    shown = nodes[max(at[-1] - reach, 0) : at[-1] + reach + 1]
    return "\n".join(f"{'>' if node is marked else ' '} {line}" for node, line in _lines(shown))


def print_node(node: Node) -> str:
    """The line of a node: `results = operator(arguments)`, and in a comment what passes said of it."""
    results = ", ".join(f"{v.name}: {v.type}" for v in node.results)
    match node:
        case Call():
            text = f"{results} = {op_name(node)}({print_args(node.args, node.kwargs)})"
        case Transfer():
            text = f"{results} = transfer({node.value.name}, {node.src} -> {node.stage})"
    said = list(_said(node))
    return f"{text}  # {' '.join(said)}" if said else text


def op_name(node: Call) -> str:
    """The name of an operator as people say it: `aten.linear`, with the overload only where it is not the default."""
    if is_higher_order(node):
        return f"higher_order.{higher_order_of(node).name}"
    return str(node.op).removesuffix(".default")


def print_args(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    return ", ".join([*map(_arg, args), *(f"{k}={_arg(v)}" for k, v in kwargs.items())])


def _lines(nodes: Sequence[Node]) -> Iterator[tuple[Node | None, str]]:
    """The lines of nodes, each with its node; where the module changes, a comment names it."""
    module = None
    for node in nodes:
        if node.where.module != module:
            module = node.where.module
            yield None, f"# {module or 'the model'}"
        yield node, print_node(node)
        if isinstance(node, Call) and is_higher_order(node):
            yield from ((None, f"    {line}") for body in higher_order_of(node).bodies for line in _body(body))


def _body(body: Body) -> Iterator[str]:
    """The lines of a function that a node runs."""
    given = (f"{v.name}: {v.type}" if isinstance(v, Value) else str(v) for v in body.inputs)
    yield f"{body.name}({', '.join(given)}):"
    yield from (f"  {line}" for _, line in _lines(body.nodes) if not line.startswith("#"))
    yield f"  return {', '.join(map(_arg, body.outputs))}"


def _said(node: Node) -> Iterator[str]:
    """Notes of passes on a node."""
    if node.stage:
        yield f"stage={node.stage}"
    if node.view:
        yield "view"
    if node.cost != UNKNOWN:
        yield f"flops={node.cost.flops} bytes={node.cost.bytes}"
    if node.measured:
        yield f"measured={'/'.join(format_seconds(m.time.device) for m in node.measured)}"
    if node.group:
        yield f"group={node.group}"
    if node.cheap:
        yield "cheap"
    if node.kernel:
        yield f"kernel={node.kernel}"


def _facts(graph: Graph) -> Iterator[str]:
    """Notes of capture and passes on the whole graph."""
    yield from (f"  note {note}" for note in graph.notes)
    if graph.workload:
        yield f"  cut for {format_mix([(call.sizes, call.share) for call in graph.workload])}"
    if graph.separable:
        yield f"  separable {', '.join(sorted(graph.separable))}"
    if graph.microbatching != Microbatching() and not graph.programs:
        yield f"  {_microbatches(graph)}"
    split = graph.split
    if split != Split():
        objective = split.objective + (f" with {split.in_flight} in flight" if split.in_flight > 1 else "")
        least = format_seconds(split.lower_bound)
        value = f"{format_seconds(split.value)} {split.place}".rstrip()
        yield f"  split for {objective}: {value}, no cut below {least}; {split.binds} binds"
    if split.good_for:
        yield f"  split good for {', '.join(f'{s} in {_range(*ends)}' for s, ends in split.good_for.items())}"
    for other in split.better:
        yield f"  another split is {format_share(other.gain)} better for {format_sizes(other.sizes)}"
    if graph.placement != (0,):
        yield from (f"  {line}" for line in _devices(graph))


def _microbatches(program: Graph | Program) -> str:
    found = program.microbatching
    if found.size is None:
        return f"batches are not split: {found.reason}"
    dims = [f"{v.name} {d}" for v, d in zip(program.inputs, found.inputs, strict=True) if d is not None]
    made = [f"{v.name} {d}" for v, d in zip(program.outputs, found.outputs, strict=True) if d is not None]
    return f"batches split along {found.size}: dimensions {', '.join(dims)} -> {', '.join(made)}"


def _devices(graph: Graph) -> Iterator[str]:
    """The stages of each device, and its load where that is known."""
    loads = dict(enumerate(graph.split.loads))
    for device in sorted(set(graph.placement)):
        stages = [str(stage) for stage, on in enumerate(graph.placement) if on == device]
        text = f"device {device} runs stage{'s' if len(stages) > 1 else ''} {', '.join(stages)}"
        yield f"{text}: {format_seconds(loads[device])} a batch" if device in loads else text


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
