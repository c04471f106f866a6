"""Containers go into the manifest and come out of it as they were."""

from __future__ import annotations

import json
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import sympy
import torch
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import FloatPow, IntTrueDiv, ToFloat
from transformers.modeling_outputs import BaseModelOutput

from codegen.artifact.pytree_json import tree_json
from ir.errors import CompileError
from ir.objects.signature import Slot, Tree, flatten
from runtime.call.trees.tree import parse
from tests.support.checking import assert_same

seq = sympy.Symbol("seq", integer=True, positive=True)
ONE: Any = torch.ones(1)
TWO: Any = torch.zeros(2)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Plain:
    ids: Any
    more: Any = None


@dataclass(slots=True, frozen=True)
class Slotted:
    ids: Any
    more: Any = None


class Base:
    __slots__ = ("left",)


class Derived(Base):
    """One attribute in a slot, one in `__dict__`."""

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and (self.left, self.right) == (other.left, other.right)


class Boxes(list[Any]):
    pass


class Scores(dict[Any, Any]):
    pass


def tree(value: Any) -> tuple[Tree, list[torch.Tensor]]:
    leaves, spec = flatten(value)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    slots = iter(range(len(tensors)))
    return Tree(spec, tuple(Slot(next(slots)) if isinstance(x, torch.Tensor) else x for x in leaves)), tensors


@pytest.mark.parametrize(
    "value",
    [
        ONE,
        (ONE, [TWO, ()], None),
        {"b": ONE, "a": {"deep": TWO}},
        OrderedDict(b=ONE, a=TWO),
        Pair(ONE, Pair(None, TWO)),
        Plain(ONE, more=[TWO, "text"]),
        Slotted(ONE, more=Slotted(TWO)),
        Derived(ONE, torch.Size([2, 3])),
        SimpleNamespace(ids=ONE, more=SimpleNamespace(ids=TWO)),
        (torch.zeros(2, 3).max(-1), torch.zeros(2, 3).topk(2), torch.zeros(2).sort()),
        torch.linalg.svd(torch.eye(2)),
        Boxes([ONE, TWO]),
        Scores({3: ONE, "b": Boxes([TWO])}),
        pack_padded_sequence(torch.ones(2, 3, 4), torch.tensor([3, 1]), batch_first=True),
        BaseModelOutput(last_hidden_state=ONE, hidden_states=(ONE, TWO)),
        (1, 2.5, True, "text", float("inf"), torch.float16, torch.device("cpu"), dict),
    ],
)
def test_a_tree_comes_back_as_it_was(value: Any) -> None:
    made, tensors = tree(value)
    written = json.loads(json.dumps(tree_json(made)))
    assert_same(value, parse(written, (), len(tensors)).build(tensors, {}))


@pytest.mark.parametrize("factory", [list, Plain, None])
def test_a_default_dict_makes_missing_values_as_before(factory: Any) -> None:
    made, tensors = tree(defaultdict(factory, a=ONE))
    built = parse(tree_json(made), (), 1).build(tensors, {})
    assert (built, built.default_factory) == ({"a": ONE}, factory)


def test_a_default_dict_of_a_function_cannot_be_stored() -> None:
    with pytest.raises(CompileError, match="makes missing values by one, which stages cannot carry; use a class"):
        tree_json(tree(defaultdict(one, a=ONE))[0])


def one() -> int:
    return 1


def test_a_size_is_computed_from_the_symbols() -> None:
    spec = pytree.tree_flatten([0, 0])[1]
    written = tree_json(Tree(spec, (2 * seq, Slot(0))))
    assert written == {"list": [{"size": "2*seq"}, {"slot": 0}]}
    assert parse(written, ("seq",), 1).build([ONE], {"seq": 5}) == [10, ONE]


@pytest.mark.parametrize(
    ("expr", "value"), [(IntTrueDiv(seq, 2), 2.5), (seq > 2, True), (FloatPow(ToFloat(seq), sympy.Float(2)), 25.0)]
)
def test_a_number_of_another_type_is_computed_from_the_symbols(expr: Any, value: Any) -> None:
    built = parse(tree_json(Tree(pytree.tree_flatten(0)[1], (expr,))), ("seq",), 0).build([], {"seq": 5})
    assert (built, type(built)) == (value, type(value))


def test_a_key_that_cannot_be_stored() -> None:
    with pytest.raises(CompileError, match=r"the arguments or results has the key 1\.5; use str or int keys"):
        tree_json(tree({1.5: ONE})[0])


class Colour(Enum):
    red = 1


@pytest.mark.parametrize("leaf", [{1, 2}, 1j, b"bytes", Colour.red, slice(1, 2), print])
def test_a_value_that_cannot_be_stored(leaf: Any) -> None:
    message = f"the model takes or returns {leaf!r}, of the class {type(leaf).__name__}, which stages cannot carry"
    with pytest.raises(CompileError, match=re.escape(message)):
        tree_json(tree([ONE, leaf])[0])


class Nameless:
    """A container whose children have no names."""

    def __init__(self, children: list[Any]) -> None:
        self.children = children


pytree.register_pytree_node(
    Nameless,
    lambda x: (x.children, None),
    lambda children, _: Nameless(list(children)),
    serialized_type_name="Nameless",
)


def test_a_container_that_cannot_be_stored() -> None:
    with pytest.raises(CompileError, match=r"Nameless stands among the arguments or results; its fields have no names"):
        tree_json(tree(Nameless([ONE, TWO]))[0])
