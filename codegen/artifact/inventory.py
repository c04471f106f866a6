"""The inventory in the manifest: the nodes and weights of the uncut model, and those of each stage.

`stagecut check` compares the two, so each is read off its own graph.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from codegen.artifact.weights import Sums
from codegen.lines.stage_file import StageFile
from codegen.spelling.literals import shape_source
from codegen.text.printer import CallSite
from ir.graph import Call, Constant, Graph, Node, State, Value, rename
from ir.plan import StagePlan, original
from ir.text.printer import op_name, print_args
from runtime.manifest import manifest as m
from runtime.manifest.digests import digest_of
from runtime.manifest.lines import sum_of, words_by_line


def tensor(value: Value, name: str = "") -> m.Tensor:
    """A value as the manifest lists it."""
    return m.Tensor(name or value.name, str(value.type.dtype).removeprefix("torch."), shape_source(value.type.shape))


def model_nodes(graph: Graph) -> tuple[m.ModelNode, ...]:
    """The nodes of a cut graph as they were before the cut: without transfers, and of copies one."""
    plain = cache(original)
    found: dict[str, m.ModelNode] = {}
    for node in graph.nodes:
        if isinstance(node, Call):
            before = replace(rename(node, plain), results=tuple(map(plain, node.results)))
            assert isinstance(before, Call)
            found.setdefault(before.results[0].name, _node(before))
    return tuple(found.values())


def model_weights(graph: Graph) -> tuple[m.ModelWeight, ...]:
    """The parameters, constants and states of a graph."""
    stored = (*graph.params, *graph.constants, *graph.states)
    return tuple(m.ModelWeight(tensor(v), _names(v), isinstance(v, State)) for v in stored)


def updated(graph: Graph) -> dict[str, str]:
    """The states that a graph changes, and the values that they hold after a call, by name."""
    return {state.name: original(value).name for state, value in graph.updates}


def returned(graph: Graph) -> tuple[str, ...]:
    """The values that are the outputs of a graph."""
    return tuple(original(v).name for v in graph.outputs)


def placed(plan: StagePlan) -> tuple[str, ...]:
    """The device of each stage."""
    return tuple(plan.cluster.devices[device].name for device in plan.graph.placement)


def runs(file: StageFile, sites: Mapping[Node, CallSite]) -> tuple[m.NodeRun, ...]:
    """The nodes of a stage, each with its line in the stage's file; 0 where no line runs it."""
    return tuple(_run(call, sites.get(call, CallSite(0, ""))) for call in file.calls)


def _run(call: Call, site: CallSite) -> m.NodeRun:
    return m.NodeRun(call.results[0].name, site.line, _applied(site.text), _digest(call))


def _applied(source: str) -> str:
    """The word for the operator that an expression applies last; "" where it has none."""
    match ast.parse(source or '""', mode="eval").body:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name
        case ast.BinOp(op=operator) | ast.UnaryOp(op=operator) | ast.Compare(ops=[operator]):
            return type(operator).__name__
        case ast.Call(func=ast.Subscript()) | ast.Subscript():
            return "Subscript"
    return ""


def lines(source: str) -> dict[str, str]:
    """The sum of the words of each line of a stage file, by its number as JSON has it."""
    return {str(line): sum_of(words) for line, words in words_by_line(ast.parse(source)).items()}


def held(file: StageFile, sums: Sums) -> dict[str, m.HeldTensor]:
    """The tensors of a stage by their names in it.  `sums`: the crc32 of those that were copied."""
    return dict(_held(file, sums))


def _held(file: StageFile, sums: Sums) -> Iterator[tuple[str, m.HeldTensor]]:
    becomes = {state: value.name for state, value in file.stage.graph.updates}
    for value, name in file.fqns.items():
        found = tensor(value)
        new = becomes.get(value, "") if isinstance(value, State) else ""
        shape, zeros = tuple(int(n) for n in found.shape), isinstance(value, State) and value.zeros
        yield name, m.HeldTensor(value.name, found.dtype, shape, sums.get(name, ""), new, zeros)


def _names(value: Value) -> tuple[str, ...]:
    return (value.fqn,) if isinstance(value, Constant) else value.fqns  # type: ignore[attr-defined]


def _node(call: Call) -> m.ModelNode:
    reads = tuple(v.name for v in call.operands)
    return m.ModelNode(op_name(call), reads, tuple(map(tensor, call.results)), call.cheap, _digest(call))


def _digest(call: Call) -> str:
    results = [f"{v.name}: {v.type}" for v in call.results]
    return digest_of([results, str(call.op), print_args(call.args, call.kwargs)])[:16]
