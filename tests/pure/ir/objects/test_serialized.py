"""Graphs as JSON: what is read is what was written, and what cannot be read is said."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._sympy import functions

from codegen.artifact.pytree_json import tree_json
from ir.capture import capture
from ir.errors import SourceError
from ir.graph import Graph
from ir.objects.signature import FixedTensor, Signature, Slot, Tree
from ir.serialized.graph_table import Uncut, graph_table, uncut_of
from ir.serialized.leaves import Unspeakable, leaf_json, leaf_of
from ir.serialized.rows import RowReader, RowWriter
from ir.text.printer import print_graph
from tests.support.seeds import made_once


class Varied(nn.Module):
    """A constant, a state, a tied weight, a function of torch.cond, an output in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.table = nn.Linear(4, 4), nn.Linear(4, 4), torch.arange(4.0)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor, scale: float = 2.0) -> dict[str, Any]:
        self.count += 1
        y = torch.cond(x.sum() > 0, lambda v: v.sin(), lambda v: v * 2, (self.first(x),))
        return {"y": self.second(y) * scale + self.table, "sizes": (x.shape[0] * 2 + 1, None)}


@made_once
def varied() -> Graph:
    return capture(Varied().eval(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: "batch"}})


def again(graph: Graph) -> Uncut:
    table, tensors = graph_table(Uncut(graph, notes=("use_cache is off",), made_up=True))
    return uncut_of(json.loads(json.dumps(table)), tensors.__getitem__)


def test_a_graph_is_read_as_it_was_written() -> None:
    graph = varied()
    found = again(graph)
    assert (found.notes, found.made_up) == (("use_cache is off",), True)
    assert print_graph(found.graph) == print_graph(graph)
    assert [node.where for node in found.graph.nodes] == [node.where for node in graph.nodes]
    assert tree_json(found.graph.signature.returns) == tree_json(graph.signature.returns)
    assert (found.graph.ranges, found.graph.hints) == (graph.ranges, graph.hints)
    (table,) = (c for c in found.graph.constants if c.fqn == "table")
    assert table.data.tolist() == [0, 1, 2, 3]
    assert graph_table(found)[0] == graph_table(Uncut(graph, found.notes, True))[0]


def test_numbers_of_other_kinds_are_told_apart() -> None:
    values = (1, True, 1.0, float("inf"), 2 + 1j, [1], {"a": None}, slice, torch.float16, torch.device("cpu"), "1")
    tree = Tree(pytree.tree_structure([0] * len(values)), values)
    writer = RowWriter({"Tree": Tree})
    writer.write(tree)
    found = RowReader({"Tree": Tree}, writer.tensors.__getitem__).read(json.loads(json.dumps(writer.rows)))
    assert list(map(repr, found.leaves)) == list(map(repr, values))


S = sympy.Symbol("s", integer=True, positive=True)
EXPRESSIONS = [
    sympy.Max(1, S // 2) + sympy.Mod(S, 8),
    S**2 / 3 - 0.5,
    sympy.Eq(S, 4) | (S > 9),
    functions.Mod(S, 8) + functions.Max(S, 3) - functions.FloorDiv(S + 1, 2),
    sympy.nan,
]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_sizes_and_conditions_are_expressions_again(expr: sympy.Basic) -> None:
    writer = RowWriter({})
    writer.write(expr)
    assert RowReader({}, writer.tensors.__getitem__).read(json.loads(json.dumps(writer.rows))) == expr


def test_a_default_that_no_file_has_is_none_of_its_arguments() -> None:
    graph = varied()
    parameters = [p.replace(default=object()) if p.name == "scale" else p for p in graph.signature.parameters]
    given = replace(graph, signature=replace(graph.signature, parameters=tuple(parameters)))
    x, scale = again(given).graph.signature.parameters
    assert x.default is inspect.Parameter.empty
    assert scale.default not in (2.0, None)


@pytest.mark.slow
def test_a_graph_with_an_object_that_no_file_has_says_so() -> None:
    graph = varied()
    odd = Tree(graph.signature.returns.spec, (Slot(0), object(), None))
    signature = Signature(graph.signature.parameters, graph.signature.arguments, odd)
    with pytest.raises(SourceError, match=r"its graph holds a builtins.object"):
        again(replace(graph, signature=signature))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"format": 2}, "its graph is of format 2, and this version of stagecut reads format 1"),
        ([], "its graph is no table of one"),
        ({"format": 1, "rows": [["Slot", {"index": 0}]]}, "its graph is no table of one"),
        ({"format": 1, "rows": []}, "what is not known here, or is damaged .IndexError"),
        ({"format": 1, "rows": [["Later", {}]]}, "what is not known here, or is damaged .KeyError: 'Later'"),
        ({"format": 1, "rows": [["atom", "later"]]}, "an expression of a kind 'later'"),
        ({"format": 1, "rows": [["function", "exec"]]}, "the function 'exec'"),
        ({"format": 1, "rows": [["function", "sin", "exit(3)"]]}, "sin of what is no expression"),
        (
            {"format": 1, "rows": [["TensorType", {"shape": ["exit(3)"], "dtype": None}]]},
            "'exit.3.', neither a number nor an expression",
        ),
        (
            {"format": 1, "rows": [["CallSizes", {"sizes": {"dict": [["s", "exit(3)"]]}}]]},
            "'exit.3.', neither a number nor an expression",
        ),
        ({"format": 1, "rows": [["Slot", {"index": {"op": "nowhere::mul"}}]]}, "the op nowhere::mul"),
        ({"format": 1, "rows": [["Slot", {"index": {"class": ["os", "system"]}}]]}, "os is not Python's or torch's"),
        ({"format": 1, "rows": [["Slot", {"index": {"class": ["builtins", "eval"]}}]]}, "it is a builtin_function"),
    ],
)
def test_what_cannot_be_read_is_said(table: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        uncut_of(table, [].__getitem__)


def test_only_what_is_named_is_a_leaf() -> None:
    assert leaf_of(*next(iter(leaf_json(torch.ops.aten.add.Tensor).items()))) is torch.ops.aten.add.Tensor
    with pytest.raises(Unspeakable, match=r"a ir.objects.signature.FixedTensor"):
        leaf_json(FixedTensor((1,), torch.int64))
    with pytest.raises(Unspeakable, match=r"the expression pi of a Pi"):
        RowWriter({}).write(sympy.pi)
    with pytest.raises(Unspeakable, match=r"the expression f\(2\) of a f"):
        RowWriter({}).write(sympy.Function("f")(2))
