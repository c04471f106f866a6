"""Which calls stand inside the expression of another."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from codegen.lines import inlining
from codegen.lines.inlining import Root, inline_calls
from codegen.structure.program import results
from codegen.structure.reroll import reroll
from ir.graph import Call, Value
from ir.location import Frame, Where
from tests.pure.codegen.test_reroll import layered, names_of
from tests.support.models.graphs import add, linear, param, relu, value

aten = torch.ops.aten


def on(line: int) -> Where:
    return Where("", "m.py", line, "", (Frame("", "m.py", line),))


def call(op: Any, name: str, *args: object, line: int = 1) -> Call:
    return Call(op=op, args=args, results=(value(name),), where=on(line))


def folded(nodes: list[Call], kept: set[Value]) -> list[tuple[str, set[str]]]:
    """The name of each statement, and of what stands inside it."""
    return [shown(root) for root in inline_calls(nodes, kept, "", Counter())]


def shown(root: Root) -> tuple[str, set[str]]:
    return results(root.statement)[0].name, {v.name for v in root.nested}


def test_all_calls_of_one_statement_are_one_expression() -> None:
    """`x * c + cat([-x, x[:2]])`: what the second operand needs was made after the first."""
    x, c = value("x"), value("c")
    product, part = call(aten.mul.Tensor, "product", x, c), call(aten.slice.Tensor, "part", x, 0, 0, 2)
    negated = call(aten.neg.default, "negated", x)
    joined = call(aten.cat.default, "joined", [*negated.results, *part.results])
    total = call(aten.add.Tensor, "total", *product.results, *joined.results)
    nodes = [product, part, negated, joined, total]
    assert folded(nodes, {*total.results}) == [("total", {"product", "part", "negated", "joined"})]


def test_what_reads_nothing_is_made_where_it_is_read() -> None:
    rows, columns = (call(aten.arange.default, name, 4) for name in ("rows", "columns"))
    up = call(aten.unsqueeze.default, "up", *rows.results, 0)
    down = call(aten.unsqueeze.default, "down", *columns.results, 1)
    assert folded([rows, columns, up, down], {*up.results, *down.results}) == [
        ("up", {"rows"}),
        ("down", {"columns"}),
    ]


def test_nothing_moves_behind_a_statement_of_its_own() -> None:
    x = value("x")
    first, between = relu(x, "first", where=on(1)), relu(x, "between", where=on(2))
    total = add(first.results[0], x, "total", where=on(1))
    nodes = [first, between, total]
    assert folded(nodes, {*between.results, *total.results}) == [("first", set()), ("between", set()), ("total", set())]


def test_layers_of_a_loop_stay_statements_of_their_own() -> None:
    """`for layer in layers: x = layer(x)` is one statement of the user's, but two are no repeat that pays."""
    g = layered(["residual", "residual"], collects=False, glue=False)
    body = reroll(g, names_of(g)).body
    assert [len(root.nested) for root in inline_calls(body, set(g.outputs), "", Counter())] == [0, 0]


def test_a_call_is_measured_once_however_often_its_function_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, spelled = [relu(value("x"), "y"), relu(value("z"), "w")], list[Call]()
    spell = inlining.spelled
    monkeypatch.setattr(inlining, "spelled", lambda call, *how: spelled.append(call) or spell(call, *how))
    kept = {v for node in nodes for v in node.results}
    assert folded(nodes, kept) == folded(nodes, kept)
    assert spelled == nodes


def test_long_paths_leave_less_room() -> None:
    """The path of a module counts once for a call that reads its weights."""
    x, view = value("x"), (2, 2, 2)
    for path, inside in (("fc", {"linear_0"}), ("encoder.layers.11.attention.output.dense.projection.inner", set())):
        where = Where(path, "m.py", 1, "", (Frame("", "m.py", 1),))
        made = linear(x, param(f"{path}.weight"), "linear_0", where=where)
        shaped = call(aten.view.default, "shaped", *made.results, view)
        again = call(aten.permute.default, "again", *shaped.results, [0, 2, 1])
        [*_, (name, nested)] = folded([made, shaped, again], {*again.results})
        assert (name, nested & {"linear_0"}) == ("again", inside)
