"""Several programs as one graph: what they share, what each keeps, and one of them as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch

from ir.analysis.interpret import interpret
from ir.analysis.programs import by_program, merged, program_of
from ir.analysis.verify import stateful, well_formed
from ir.errors import CompileError, VerifyError
from ir.graph import Call, Constant, Graph, Param, State
from ir.text.printer import print_graph
from tests.support.models.graphs import add, graph, linear, param, relu, typed, value

seq = sympy.Symbol("seq", integer=True, positive=True)
WEIGHTS = {"a": torch.eye(4) * 2, "b": torch.eye(4) * 3}


def chain(*fqns: str, length: Any = 2, hint: int = 0, high: int | None = None) -> Graph:
    """Linear layers one after the other, on an input of `length` rows; `hint` and `high` are those of `seq`."""
    x = value("x", length, 4)
    nodes, source = [], x
    for fqn in fqns:
        nodes.append(linear(source, param(fqn), f"y_{fqn}"))
        [source] = nodes[-1].results
    sizes = {"hints": {seq: hint}, "ranges": {seq: (1, high)}} if hint else {}
    return graph([x], nodes, [source], **sizes)


def two() -> Graph:
    wide = chain("b", "a", length=5)
    return merged([("main", {}, 1.0, chain("a", "b")), ("wide", {"x": [1, 2]}, 3.0, wide)])


def with_constant(fqn: str, data: torch.Tensor) -> Graph:
    x = value("x")
    constant = Constant(fqn, typed(2, 4), fqn, data)
    total = add(x, constant, "total")
    return graph([x], [total], total.results)


def test_one_program_is_its_graph() -> None:
    plain = chain("a")
    assert merged([("main", {}, 1.0, plain)]) is plain
    assert program_of(plain, 0) is plain


def test_weights_are_shared_and_values_are_not() -> None:
    union = two()
    well_formed(union)
    assert [p.fqns for p in union.params] == [("a",), ("b",)]
    assert [[n.results[0].name for n in union.nodes if n.program == i] for i in range(2)] == [
        ["y_a", "y_b"],
        ["y_b", "y_a"],
    ]
    assert [p.calls for p in union.programs] == [1.0, 3.0]
    readers = {p.name: [node.program for node in union.users[p]] for p in union.params}
    assert readers == {"a": [0, 1], "b": [0, 1]}


@pytest.mark.parametrize("index", [0, 1])
def test_a_program_means_what_it_did(index: int) -> None:
    x = torch.randn((2, 5)[index], 4)
    for union in (two(), by_program(two(), lambda program: program)):
        [found] = interpret(union, [x], WEIGHTS, program=index).outputs
        assert torch.equal(found, x * 6)
        assert [v.name for v in program_of(union, index).inputs] == ["x"]


def test_sizes_of_one_name_are_one_if_they_are_equal() -> None:
    short, long = chain("a", length=seq, hint=4, high=9), chain("a", length=seq, hint=64)
    alike = merged([("first", {}, 1.0, short), ("second", {}, 1.0, short)])
    assert list(map(str, alike.hints)) == ["seq"]
    union = merged([("short", {}, 1.0, short), ("long", {}, 1.0, long)])
    assert {str(s): size for s, size in union.hints.items()} == {"seq": 4, "seq_long": 64}
    assert [str(node.results[0].type.shape[0]) for node in union.nodes] == ["seq", "seq_long"]
    again = program_of(union, 1)
    assert (again.hints, again.ranges) == ({seq: 64}, {seq: (1, None)})
    assert print_graph(again) == print_graph(long)


def test_constants_of_one_name_are_one_if_they_are_equal() -> None:
    ones, twos = with_constant("c", torch.ones(2, 4)), with_constant("c", torch.ones(2, 4) * 2)
    assert len(merged([("first", {}, 1.0, ones), ("second", {}, 1.0, ones)]).constants) == 1
    union = merged([("first", {}, 1.0, ones), ("second", {}, 1.0, twos)])
    assert [c.fqn for c in union.constants] == ["c", "c_1"]
    assert interpret(union, [torch.zeros(2, 4)], {}, program=1).outputs[0].eq(2).all()


def test_what_one_program_changes_is_a_state_of_all() -> None:
    x, y, kept = value("x"), value("x"), State("kept", typed(2, 4), ("kept",))
    reads = add(x, Param("kept", typed(2, 4), ("kept",), buffer=True), "total")
    writes = relu(kept, "new")
    reader = graph([x], [reads], reads.results)
    writer = graph([y], [writes], writes.results, updates=((kept, writes.results[0]),))
    union = merged([("reader", {}, 1.0, reader), ("writer", {}, 1.0, writer)])
    well_formed(union)
    assert (union.params, [s.fqns for s in union.states]) == ((), [("kept",)])
    with pytest.raises(VerifyError, match="state kept is touched by stages"):
        stateful(replace(union, nodes=tuple(replace(n, stage=n.program) for n in union.nodes), placement=(0, 1)))


def test_notes_say_whose_they_are() -> None:
    first, second = replace(chain("a"), notes=("both", "first")), replace(chain("a"), notes=("both",))
    assert merged([("p", {}, 1.0, first), ("q", {}, 1.0, second)]).notes == ("both", "p: first")


def test_a_name_of_two_tensors_is_refused() -> None:
    x = value("x", 2, 2)
    other = linear(x, param("a", shape=(4, 2)), "y")
    with pytest.raises(CompileError, match=r"a is float32\[4, 4\] in one program, and float32\[4, 2\] in second"):
        merged([("first", {}, 1.0, chain("a")), ("second", {}, 1.0, graph([x], [other], other.results))])
    with pytest.raises(CompileError, match="two programs are named 'main'"):
        merged([("main", {}, 1.0, chain("a"))] * 2)


def test_a_node_that_reads_another_program_is_found() -> None:
    union = two()
    first, *others, last = union.nodes
    assert isinstance(last, Call)
    crossed = replace(last, args=(first.results[0], *last.args[1:]))
    with pytest.raises(VerifyError, match="y_a is of another program"):
        well_formed(replace(union, nodes=(first, *others, crossed)))
    swapped = replace(union.programs[1], outputs=union.programs[0].outputs)
    with pytest.raises(VerifyError, match="output y_b is made by no node"):
        well_formed(replace(union, programs=(union.programs[0], swapped)))


def test_the_dump_has_what_is_shared_first() -> None:
    assert print_graph(two()) == DUMP


DUMP = """\
graph:
  param a: float32[4, 4]  # a
  param b: float32[4, 4]  # b
program main(x: float32[2, 4]):
  # the model
  y_a: float32[2, 4] = aten.linear(x, a)
  y_b: float32[2, 4] = aten.linear(y_a, b)
  return y_b
program wide(x: float32[5, 4]):
  when x = [1, 2]
  called 3 times
  # the model
  y_b: float32[5, 4] = aten.linear(x, b)
  y_a: float32[5, 4] = aten.linear(y_b, a)
  return y_a"""
