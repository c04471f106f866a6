"""Names in stage files: the user's variables, and the same ones in the tables, the parameters and what is returned."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from codegen.text.stage_source import StageFile, emit
from ir.capture import capture
from ir.graph import Call, Graph
from ir.location import Frame, Where
from ir.plan import StagePlan, plan_stages
from passes.cheap.duplicate_cheap import DuplicateCheap
from passes.insert_transfers import InsertTransfers
from tests.support.models.graphs import add, graph, linear, param, relu, value
from tests.support.models.planning import cut, machine


class Speaks(nn.Module):
    """A module whose forward calls it otherwise than self."""

    def __init__(self) -> None:
        super().__init__()
        self.video = nn.Linear(4, 4)

    def forward(me, frames: Tensor) -> Tensor:
        features = me.video(frames)
        return features.relu()


class Two(nn.Module):
    """A module with two results, of which the second one is made first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x).tanh(), self.b(x)


class Branches(nn.Module):
    """Two branches in one statement, and a value that comes back through two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.video, self.audio, self.two = nn.Linear(4, 4), nn.Linear(4, 4), Two()

    def forward(self, frames: Tensor, sound: Tensor) -> Tensor:
        v, a = self.video(frames).relu(), self.audio(sound).relu()
        left, right = self.two(v)
        return (left * right + a).sin() + swapped(v, a)


def swapped(x: Tensor, y: Tensor) -> Tensor:
    total, rest = x + y, x - y
    return rest.cos() * total


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        queries, keys = self.q(hidden), self.k(hidden)
        scores = (queries @ keys.transpose(0, 1)).softmax(-1)
        mixed = self.o(scores @ hidden)
        return residual + mixed


class Functions(nn.Module):
    """A branch, a loop over rows and one that a number ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        start = self.first(x)
        chosen = torch.cond(start.sum() > 0, lambda x: x.relu(), lambda x: x * 2, (start,))
        total, rows = scan(lambda carry, row: (carry + row, (carry * row)), chosen.sum(0), chosen)
        return total, rows


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


MODELS: Mapping[str, tuple[nn.Module, tuple[Any, ...]]] = {
    "branches": (Branches(), (torch.ones(2, 4), torch.ones(2, 4))),
    "layers": (Layers(), (torch.ones(3, 4),)),
}


def captured(name: str) -> Graph:
    model, args = MODELS[name]
    return capture(model.eval(), args)


def planned(graph: Graph, first: int, second: int | None = None) -> StagePlan:
    """Stages from the nodes `first` and `second` on."""
    second = len(graph.nodes) if second is None else second
    staged = cut(graph, [int(i >= first) + int(i >= second) for i in range(len(graph.nodes))])
    cluster = machine(len(staged.placement))
    return plan_stages(InsertTransfers().run(DuplicateCheap().run(staged, cluster), cluster), cluster)


def sent(plan: StagePlan, stage: int = 0) -> set[str]:
    return {v.name for v in plan.stages[stage].graph.outputs}


def sources(plan: StagePlan) -> list[str]:
    return [emit(StageFile(plan, stage, "model")).source for stage in plan.stages]


def variables(graph: Graph) -> list[tuple[str, ...]]:
    return [tuple(name for name in v.variables if name) for n in graph.nodes for v in n.results]


def test_each_element_of_a_tuple_has_the_name_of_its_target() -> None:
    assert variables(captured("branches"))[:4] == [(), ("v",), (), ("a",)]


def test_a_result_of_a_module_has_the_name_of_its_own_target_in_the_caller() -> None:
    """Not that of the order in which the results are made."""
    names = [found[0] for found in variables(captured("branches")) if found]
    assert names == ["v", "a", "left", "right", "total", "rest"]


def test_a_variable_of_a_function_is_known_too() -> None:
    graph = captured("branches")
    total = next(v for n in graph.nodes for v in n.results if "total" in v.variables)
    assert total.variables == ("", "total")


def test_a_variable_is_known_whatever_forward_calls_its_module() -> None:
    assert variables(capture(Speaks().eval(), (torch.ones(2, 4),)))[0] == ("features",)


def test_features_cross_under_the_names_of_the_source() -> None:
    graph = captured("branches")
    assert sent(planned(graph, 4)) == {"v", "a"}


def test_a_value_without_a_variable_is_called_after_its_layer() -> None:
    graph = captured("branches")
    assert sent(planned(graph, 1)) == {"video"}


def test_a_cut_inside_a_layer_sends_what_the_layer_calls_it() -> None:
    graph = captured("layers")
    assert sent(planned(graph, 2)) == {"queries", "keys"}


def test_another_form_of_a_value_has_its_name() -> None:
    """`keys.transpose(0, 1)` is no variable's."""
    graph = captured("layers")
    assert sent(planned(graph, 3)) == {"queries", "keys"}


def test_the_class_of_a_whole_module_keeps_the_plain_name() -> None:
    """The first layer is cut; the others are whole."""
    _, two = sources(planned(captured("layers"), 2))
    assert "class LayerStart(" not in two
    classes = {n.name for n in ast.walk(ast.parse(two)) if isinstance(n, ast.ClassDef)}
    assert "Layer" in classes


def test_loops_end_in_the_variable_that_is_sent() -> None:
    graph = captured("layers")
    size = len(graph.nodes) // 4
    check(planned(graph, size, 3 * size))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_tables_parameters_and_returned_variables_agree(name: str) -> None:
    """Wherever the program is cut."""
    graph = captured(name)
    for first in range(1, len(graph.nodes), 2):
        check(planned(graph, first, (first + len(graph.nodes)) // 2 + 1))


def check(plan: StagePlan) -> None:
    for stage, source in zip(plan.stages, sources(plan), strict=True):
        tree = ast.parse(source)
        [cls] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == f"Stage{stage.index}"]
        [forward] = [n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
        last = forward.body[-1]
        assert isinstance(last, ast.Return)
        assert isinstance(last.value, ast.Tuple)
        assert [ast.unparse(e) for e in last.value.elts] == keys(tree, "SENDS")
        assert [a.arg for a in forward.args.args[1:]] == keys(tree, "RECEIVES")


def keys(tree: ast.Module, table: str) -> list[str]:
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=found)) if name == table:
                return [k.value for k in found if isinstance(k, ast.Constant) and isinstance(k.value, str)]
    return []


@pytest.mark.slow
def test_the_parameters_of_functions_are_called_as_what_they_are_given() -> None:
    """One of the rows that `scan` goes over is the `_i` of its rows."""
    graph = capture(Functions().eval(), (torch.ones(3, 4),))
    [source] = sources(planned(graph, len(graph.nodes)))
    given = {
        n.name: [a.arg for a in n.args.args] for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)
    }
    assert given["true_fn"] == given["false_fn"] == ["start"]
    assert given["combine_fn"] == ["sum", "chosen_i"]


def test_the_class_of_a_module_of_torch_does_not_call_itself() -> None:
    x, weight, where = value("x"), param("fc.weight"), Where("fc", frames=(Frame(""), Frame("fc")))
    nodes: list[Call] = []
    for i in range(2):  # what functionalization adds at a layer counts as its own
        nodes.append(relu(nodes[-1].results[0] if i else x, f"relu_{i}", where=where))
        nodes.append(relu(nodes[-1].results[0], f"again_{i}", where=where))
        nodes.append(linear(nodes[-1].results[0], weight, f"linear_{i}", where=where))
        nodes.append(add(nodes[-1].results[0], x, f"add_{i}", where=Where(frames=(Frame(""),))))
    made = graph([x], nodes, nodes[-1].results, modules={"": "Model", "fc": "Linear"})
    [source] = sources(planned(made, len(nodes)))
    assert "class Linear(nn.Module)" in source
    assert "return F.linear(" in source
