"""Rolling up loses nothing: laid out flat again, a program is the graph that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.structure import forms
from codegen.structure.forms import skeleton
from codegen.structure.program import Loop, Statement, Update, Use, operands, results, walk
from codegen.structure.reroll import Repeats, Rerolled, reroll
from ir.analysis.pools import with_pools
from ir.capture import capture
from ir.decoding import Decoding
from ir.graph import Call, Graph, Value
from ir.location import Frame, Where
from tests.support.models.graphs import add, captured, graph, linear, param, relu, value

aten = torch.ops.aten

# ---- a program laid out flat


Row = tuple[Any, tuple[Any, ...]]
Env = Mapping[Value, Any]


class Flat:
    """Runs a program on names: each result is the number of its row, each weight its own name.

    Equal rows have one number, so that it does not matter in which order they are made.
    """

    def __init__(self, fqns: Mapping[Value, str], numbers: dict[str, int]) -> None:
        self.fqns, self.numbers = fqns, numbers
        self.rows: list[Row] = []

    def run(self, body: Sequence[Statement], env: dict[Value, Any], moved: Sequence[tuple[str, str]]) -> None:
        for statement in body:
            match statement:
                case Call():
                    self.rows.append((literals(statement), self.read(operands(statement), env, moved)))
                    number = self.numbers.setdefault(repr(self.rows[-1]), len(self.numbers))
                    env |= {v: (number, i) for i, v in enumerate(results(statement))}
                case Update():
                    self.rows.append(
                        (self.name(self.fqns[statement.state], moved), self.read([statement.value], env, moved))
                    )
                case Use():
                    self.use(statement, env, moved)
                case Loop():
                    self.loop(statement, env, moved)

    def use(self, use: Use, env: dict[Value, Any], moved: Sequence[tuple[str, str]]) -> None:
        given = self.read(use.args, env, moved)
        inner = dict(zip(use.block.inputs, given, strict=True))
        self.run(use.block.body, inner, [(use.block.path, self.name(use.path, moved))])
        env |= zip(use.results, self.read(use.block.outputs, inner, []), strict=True)

    def loop(self, loop: Loop, env: dict[Value, Any], moved: Sequence[tuple[str, str]]) -> None:
        handed = self.read([c.before for c in loop.carried], env, moved)
        for t in range(len(loop.turns)):
            inner = env | dict(zip([c.inside for c in loop.carried], handed, strict=True))
            inner |= {e.inside: self.read([e.values[t]], env, moved)[0] for e in loop.each}
            steps = [(s.first, f"{s.container}.{s.numbers[t]}".lstrip(".")) for s in loop.steps]
            self.run(loop.body, inner, [*steps, *moved])
            handed = tuple(inner[c.after] for c in loop.carried)
            env |= {c.values[t]: inner[c.inside] for c in loop.collected}
        env |= {c.final: h for c, h in zip(loop.carried, handed, strict=True) if c.final is not None}

    def read(self, values: Sequence[Value], env: Env, moved: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
        return tuple(env[v] if v in env else self.name(self.fqns[v], moved) for v in values)

    def name(self, fqn: str, moved: Sequence[tuple[str, str]]) -> str:
        for old, new in moved:
            if f"{fqn}.".startswith(f"{old}."):
                fqn = new + fqn[len(old) :]
        return fqn


def literals(call: Call) -> Any:
    """An operator and its arguments; classes that are shared may call their sizes differently."""
    op, found, *rest = skeleton(call)
    return op, tuple("size" if isinstance(x[1], sympy.Basic) else x for x in found if x != "value"), rest


def flat(
    body: Sequence[Statement], g: Graph, fqns: Mapping[Value, str], numbers: dict[str, int]
) -> tuple[list[Row], tuple[Any, ...]]:
    machine = Flat(fqns, numbers)
    env: dict[Value, Any] = {v: v for v in g.inputs}
    machine.run(body, env, [])
    return machine.rows, machine.read(g.outputs, env, [])


def names_of(g: Graph) -> Mapping[Value, str]:
    stored: dict[Value, str] = {v: v.fqns[0] for v in (*g.params, *g.states)}
    return stored | {c: c.fqn for c in g.constants}


def check(g: Graph) -> Rerolled:
    fqns = names_of(g)
    program = reroll(g, fqns)
    numbers: dict[str, int] = {}
    rows, outputs = flat(program.body, g, fqns, numbers)
    plain = [n for n in g.nodes if isinstance(n, Call)]
    wanted, wanted_outputs = flat(plain, g, fqns, numbers)
    calls = [row for row in rows if not isinstance(row[0], str)]
    assert sorted(map(repr, calls)) == sorted(map(repr, wanted))
    assert outputs == wanted_outputs
    return program


# ---- random layered graphs


KINDS = ("plain", "residual", "wide", "skip", "masked")


def layered(kinds: Sequence[str], collects: bool, glue: bool) -> Graph:
    """Layers of several kinds in a row; each reads the last one's result, some a mask or the first value as well."""
    x, mask = value("x", 2, 4), value("mask", 2, 4)
    nodes: list[Call] = []
    carried, kept = x, []

    def put(node: Call) -> Value:
        nodes.append(node)
        return node.results[0]

    for i, kind in enumerate(kinds):
        path = f"layers.{i}"
        where = Where(path, "m.py", 3, "", (Frame("", "m.py", 1), Frame(path, "m.py", 3)))
        inner = Where(f"{path}.fc", "m.py", 3, "", (*where.frames, Frame(f"{path}.fc")))
        before = carried
        carried = put(linear(carried, param(f"{path}.fc.weight"), f"linear_{i}", where=inner))
        carried = put(relu(carried, f"relu_{i}", where=where))
        if kind != "plain":
            other = {"residual": before, "wide": carried, "skip": x, "masked": mask}[kind]
            carried = put(add(carried, other, f"add_{i}", where=where))
        if glue and i % 2:
            carried = put(relu(carried, f"glue_{i}", where=Where("", "m.py", 2, "", (Frame("", "m.py", 2),))))
        kept += [carried] if collects else []
    return graph([x, mask], nodes, kept or [carried])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_random_layers_are_the_same_flat(kinds: list[str], collects: bool, glue: bool) -> None:
    check(layered(kinds, collects, glue))


CAPTURED = ["long skips", "several results", "constants", "batch normalisation", "a cache that calls fill"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTURED)
def test_captured_models_are_the_same_flat(name: str) -> None:
    check(captured(name))


# ---- what is found


def loops(body: Sequence[Statement]) -> Iterator[Loop]:
    return (s for s in walk(body) if isinstance(s, Loop))


def test_equal_layers_are_one_class_and_one_loop() -> None:
    program = check(layered(["residual"] * 8, collects=False, glue=False))
    [loop] = loops(program.body)
    assert len(program.body) == 1
    assert (len(loop.turns), len(loop.body), len(program.blocks)) == (8, 1, 1)
    assert [(s.container, s.numbers) for s in loop.steps] == [("layers", tuple(range(8)))]
    assert loop.carried[0].final is not None


def test_arguments_are_compared_once_however_often_a_stage_is_rolled(monkeypatch: pytest.MonkeyPatch) -> None:
    g = layered(["residual"] * 8, collects=False, glue=False)
    repeats, flattened = Repeats.of(g, names_of(g)), list[Any]()
    monkeypatch.setattr(forms, "tree_flatten", flattened.append)
    opened = repeats.rolled(frozenset(), frozenset({"layers.0"})), repeats.rolled(frozenset(), frozenset())
    assert [len(program.blocks) for program in opened] == [0, 1]
    assert not flattened


def test_a_class_is_the_same_for_all_choices_with_the_same_classes_in_it() -> None:
    g = layered(["residual"] * 8, collects=False, glue=False)
    repeats = Repeats.of(g, names_of(g))
    once, closed, again = (repeats.rolled(frozenset(), frozenset(path)) for path in ((), ("layers.0",), ()))
    assert once.blocks == again.blocks != closed.blocks


def test_a_class_is_made_anew_where_the_classes_in_a_class_in_it_are_others() -> None:
    """The class of `first.layer` shows `stem`, whose norm is a class; `first.layer.norm` has two forms, and is none."""
    x = carried = value("x", 2, 4)
    nodes = list[Call]()
    for path, count in [
        *(("stem.norm", 3), ("stem", 2)),
        *(("first.layer.norm", 3), ("first.layer", 2), ("first", 3), ("first.layer.norm", 1)),
        *(("second.layer.norm", 3), ("second.layer", 2), ("second", 3)),
    ]:
        around = ["", *accumulate(path.split("."), "{}.{}".format)] if count > 1 else ["", path]
        where = Where(path, "m.py", 3, "", tuple(Frame(module, "m.py", 3) for module in around))
        for _ in range(count):
            nodes.append(relu(carried, f"relu_{len(nodes)}", where=where))
            [carried] = nodes[-1].results
    g = graph([x], nodes, [carried])
    repeats = Repeats.of(g, names_of(g))
    for closed, paths in ((), ["stem.norm", "stem", "first"]), (("stem.norm",), ["stem", "first"]):
        program = repeats.rolled(frozenset(), frozenset(closed))
        assert [block.path for block in program.blocks] == paths
        assert {s.block for body in program.bodies for s in walk(body) if isinstance(s, Use)} == {*program.blocks}


def test_what_every_layer_makes_is_collected() -> None:
    program = check(layered(["residual"] * 8, collects=True, glue=False))
    [loop] = loops(program.body)
    assert [len(c.values) for c in loop.collected] == [8]


def test_a_mask_is_the_same_at_every_turn() -> None:
    program = check(layered(["masked"] * 5, collects=False, glue=False))
    [loop] = loops(program.body)
    assert len(loop.carried) == 1
    assert not loop.each


def test_layers_of_two_kinds_in_turn_are_one_loop() -> None:
    program = check(layered(["plain", "residual"] * 4, collects=False, glue=False))
    [loop] = loops(program.body)
    assert [s.numbers for s in loop.steps] == [(0, 2, 4, 6), (1, 3, 5, 7)]


def test_a_value_read_in_the_middle_ends_a_loop() -> None:
    """Features of a few layers: one loop up to each, and no list of all."""
    g = layered(["residual"] * 9, collects=True, glue=False)
    g = graph(g.inputs, g.nodes, [g.outputs[2], g.outputs[5], g.outputs[8]])
    program = check(g)
    assert [len(loop.turns) for loop in loops(program.body)] == [3, 3, 3]
    assert not any(loop.collected for loop in loops(program.body))


def test_what_does_not_repeat_stays_straight() -> None:
    program = check(layered(["plain", "residual", "skip"], collects=False, glue=False))
    assert not program.blocks
    assert not list(loops(program.body))


def test_a_loop_begins_where_a_layer_does() -> None:
    """After half a layer and before another half: not with the end of one and the beginning of the next."""
    x = value("x", 2, 4)
    nodes, before = list[Call](), x
    for i, half in [(0, "last"), *((i, half) for i in range(1, 5) for half in ("first", "last")), (5, "first")]:
        path = f"layers.{i}.{half}"
        where = Where(path, "m.py", 3, "", (Frame("", "m.py", 1), Frame(path, "m.py", 3)))
        nodes.append(linear(before, param(f"{path}.weight"), f"{half}_{i}", where=where))
        if half == "last":
            nodes.append(relu(nodes[-1].results[0], f"relu_{i}", where=where))
        before = nodes[-1].results[0]
    program = check(graph([x], nodes, [before]))
    [loop] = loops(program.body)
    assert [(s.container, s.numbers) for s in loop.steps] == [("layers", (1, 2, 3, 4))]


# ---- what layers share


def biased(layers: int, own: bool = False) -> Graph:
    """Layers that add a bias, which the first makes of a weight of its own; or each makes its `own`."""
    x = value("x", 2, 4)
    nodes, carried, bias = list[Call](), x, x
    for i in range(layers):
        path = f"layers.{i}"
        where = Where(path, "m.py", 3, "", (Frame("", "m.py", 1), Frame(path, "m.py", 3)))
        inner = Where(f"{path}.fc", "m.py", 3, "", (*where.frames, Frame(f"{path}.fc")))
        nodes.append(linear(carried, param(f"{path}.fc.weight"), f"linear_{i}", where=inner))
        if i == 0 or own:
            nodes.append(relu(param(f"{path}.fc.table", shape=(2, 4)), f"bias_{i}", where=where))
            bias = nodes[-1].results[0]
        nodes.append(add(nodes[-2 if i == 0 or own else -1].results[0], bias, f"add_{i}", where=where))
        carried = nodes[-1].results[0]
        nodes.append(relu(carried, f"relu_{i}", where=where))
        carried = nodes[-1].results[0]
    modules = {f"layers.{i}": "Layer" for i in range(layers)}
    return graph([x], nodes, [carried], modules=modules)


def test_what_the_first_layer_makes_for_all_stands_before_it() -> None:
    program = check(biased(5))
    [block] = program.blocks
    bias, loop = program.body
    assert isinstance(bias, Call)
    assert isinstance(loop, Loop)
    assert [s.numbers for s in loop.steps] == [(0, 1, 2, 3, 4)]
    assert block.stored == {"fc.weight"}  # without the table, which layer 0 alone has


def test_what_each_layer_makes_for_itself_stays_in_it() -> None:
    program = check(biased(5, own=True))
    [loop] = program.body
    assert isinstance(loop, Loop)
    assert program.blocks[0].stored == {"fc.weight", "fc.table"}


# ---- one class for several forms


def attending(layers: int, seq: sympy.Symbol, other: sympy.Symbol) -> Graph:
    """Layers that attend to themselves and then to another sequence, by the same class."""
    x, y = value("x", 2, seq, 4), value("y", 2, other, 4)
    nodes, carried = list[Call](), x

    def put(op: Any, name: str, *args: Any, path: str, size: Any = 1) -> Value:
        where = Where(path, "m.py", 3, "", (Frame("", "m.py", 1), Frame(path.rpartition(".")[0], "m.py", 3)))
        nodes.append(Call(op=op, args=args, results=(value(name, 2, size, 4),), where=where))
        return nodes[-1].results[0]

    for i in range(layers):
        for name, read, size in (("to_self", None, seq), ("to_other", y, other)):
            path, read = f"layers.{i}.{name}", carried if read is None else read
            q = put(
                aten.linear.default, f"q_{name}_{i}", carried, param(f"{path}.q.weight"), path=f"{path}.q", size=seq
            )
            k = put(aten.linear.default, f"k_{name}_{i}", read, param(f"{path}.k.weight"), path=f"{path}.k", size=size)
            k = put(aten.view.default, f"view_{name}_{i}", k, [2, size, 4], path=f"{path}.k", size=size)
            carried = put(aten.bmm.default, f"product_{name}_{i}", q, k, path=f"{path}.q", size=seq)
    modules = {f"layers.{i}.{name}": "Attention" for i in range(layers) for name in ("to_self", "to_other")}
    return graph([x, y], nodes, [carried], modules=modules)


def test_attention_to_itself_is_that_to_others_given_one_value_twice() -> None:
    program = check(attending(3, *sympy.symbols("seq other", integer=True, positive=True)))
    assert len(program.blocks) == 1
    [block] = program.blocks
    assert len(block.inputs) == 2
    [loop] = program.body
    assert isinstance(loop, Loop)
    to_self, to_other = loop.body
    assert isinstance(to_self, Use)
    assert isinstance(to_other, Use)
    assert to_self.args[0] is to_self.args[1]
    assert len(set(to_other.args)) == 2


class Layer(torch.nn.Module):
    """Stores rows in a pool of its own, and multiplies what is there."""

    pool: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("pool", torch.zeros(5, 2, 3), persistent=False)

    def forward(self, x: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
        self.pool.index_put_((pages, pages % 2), x)
        return self.linear(self.pool[pages]).sum(1).relu()


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(), Layer()])

    def forward(self, x: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, pages)
        return x


@pytest.mark.parametrize("alike", [True, False])
def test_layers_whose_pools_take_their_size_from_different_counts_have_classes_of_their_own(alike: bool) -> None:
    """That there are nine pages of either kind says nothing of the next load."""
    names = tuple(f"layers.{i}.pool" for i in range(2))
    pools, sliding = (names, ()) if alike else (names[:1], names[1:])
    decoding = Decoding(page=2, pages=9, window_pages=9, pools=pools, window_pools=sliding)
    g = with_pools(capture(Layers(), (torch.randn(2, 3), torch.tensor([1, 4]))), decoding)
    blocks = {use.block for use in walk(check(g).body) if isinstance(use, Use)}
    assert len(blocks) == (1 if alike else 0)
