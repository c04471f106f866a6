"""Trees: built from tensors, taken apart again, and refused where they differ."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import OrderedDict, UserDict, namedtuple
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime import InputError, ManifestError
from runtime.call.trees.tree import parse
from runtime.call.trees.tree_nodes import describe_value, slots

Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Output:
    logits: Any
    loss: Any = None


class Cache:
    layers: list[Any]

    def __init__(self) -> None:
        raise AssertionError("built without its constructor")


X, Y = torch.zeros(2), torch.ones(3)
SLOT0, SLOT1, NONE = {"slot": 0}, {"slot": 1}, {"value": None}


def fields(cls: type | str, by: str, **children: Any) -> dict[str, Any]:
    name = cls if isinstance(cls, str) else f"{cls.__module__}:{cls.__qualname__}"
    return {"fields": [[key, child] for key, child in children.items()], "class": name, "by": by}


def build(tree: Any, **sizes: int) -> Any:
    return parse(tree, sizes, 2).build([X, Y], sizes)


def leaves(tree: Any, value: Any, **sizes: int) -> dict[str, Any]:
    return {leaf.name: leaf.value for leaf in parse(tree, sizes, 2).leaves(value, "a")}


@pytest.mark.parametrize(
    ("tree", "value"),
    [
        ({"value": "gelu"}, "gelu"),
        ({"value": True}, True),
        ({"float": "-inf"}, -math.inf),
        ({"torch": "bfloat16"}, torch.bfloat16),
        ({"device": "cpu"}, torch.device("cpu")),
        ({"class": "collections:OrderedDict"}, OrderedDict),
        ({"tuple": []}, ()),
        ({"tuple": [SLOT1, NONE]}, (Y, None)),
        ({"tuple": [{"value": 2}, {"value": 3}], "class": "torch:Size"}, torch.Size([2, 3])),
        ({"list": [SLOT0, {"tuple": [SLOT1]}]}, [X, (Y,)]),
        ({"dict": [["a", SLOT0], [3, SLOT1]]}, {"a": X, 3: Y}),
        (fields(Pair, "position", left=SLOT0, right=SLOT1), Pair(X, Y)),
    ],
)
def test_a_tree_is_built_and_taken_apart(tree: Any, value: Any) -> None:
    built = build(tree)
    assert type(built) is type(value)
    assert built == value
    assert len(leaves(tree, built)) == len(list(slots(parse(tree, (), 2))))


def test_a_dict_of_another_class_keeps_it() -> None:
    built = build({"dict": [["b", SLOT0], ["a", SLOT1]], "class": "collections:OrderedDict"})
    assert type(built) is OrderedDict
    assert list(built) == ["b", "a"]


def test_a_dataclass_is_built_by_keyword() -> None:
    built = build(fields(Output, "keyword", logits=SLOT0))
    assert isinstance(built, Output)
    assert built.logits is X
    assert built.loss is None


def test_an_object_is_built_by_its_attributes() -> None:
    built = build(fields(Cache, "attribute", layers={"list": [SLOT0]}, length={"size": "2*n"}), n=3)
    assert type(built) is Cache
    assert vars(built) == {"layers": [X], "length": 6}


def test_a_transformers_output_is_built_and_taken_apart() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    tree = fields(outputs.BaseModelOutput, "keyword", last_hidden_state=SLOT0)
    built = build(tree)
    assert isinstance(built, outputs.BaseModelOutput)
    assert built["last_hidden_state"] is X
    assert leaves(tree, built) == {"a.last_hidden_state": X}
    with pytest.raises(InputError, match="`a` has a `attentions`; it had none"):
        leaves(tree, outputs.BaseModelOutput(last_hidden_state=X, attentions=(Y,)))


def test_leaves_have_dotted_names() -> None:
    tree = fields(Cache, "attribute", layers={"list": [{"dict": [["keys", SLOT0], ["values", SLOT1]]}]})
    cache = Cache.__new__(Cache)
    cache.layers = [{"values": Y, "keys": X}]
    assert leaves(tree, cache) == {"a.layers.0.keys": X, "a.layers.0.values": Y}


def test_sizes_are_leaves_too() -> None:
    assert leaves({"tuple": [{"size": "n"}, SLOT0]}, (5, X), n=5) == {"a.0": 5, "a.1": X}


def test_any_mapping_stands_for_a_dict() -> None:
    assert leaves({"dict": [["x", SLOT0]]}, UserDict(x=X)) == {"a.x": X}


@pytest.mark.parametrize(
    ("tree", "value", "message"),
    [
        ({"value": False}, True, "argument `a` was captured as False and is fixed; got True; compile again with"),
        ({"value": 1}, True, "captured as 1 and is fixed; got True"),
        ({"value": 1}, 1.0, "captured as 1 and is fixed; got 1.0"),
        (NONE, X, r"captured as None and is fixed; got float32\[2\]"),
        ({"float": "nan"}, 0.0, "captured as nan and is fixed; got 0.0"),
        ({"list": [SLOT0]}, (X,), "argument `a`: expected a list of 1, got a tuple of 1"),
        ({"tuple": [SLOT0]}, (X, Y), "argument `a`: expected a tuple of 1, got a tuple of 2"),
        ({"tuple": [{"list": [SLOT0]}]}, (X,), r"argument `a.0`: expected a list of 1, got float32\[2\]"),
        ({"dict": [["k", SLOT0]]}, [X], "argument `a`: expected a mapping, got a list of 1"),
        ({"dict": [["k", SLOT0]]}, {}, "argument `a` has no `k`; it had one when the model was captured"),
        ({"dict": []}, {"k": X}, "argument `a` has a `k`; it had none when the model was captured"),
        (fields(Pair, "position", left=SLOT0, right=SLOT1), (X, Y), "expected class Pair, got a tuple of 2"),
        (fields(Output, "keyword", logits=SLOT0), {"logits": X}, "expected class Output, got a dict of 1"),
        (fields(Output, "keyword", logits=SLOT0), Output(X, Y), "`a` has a `loss`; it had none"),
        (fields(Output, "keyword", logits=SLOT0, loss={"value": 2}), Output(X, 3), "`a.loss` was captured as 2"),
    ],
)
def test_a_different_value_is_refused(tree: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        leaves(tree, value)


def test_nan_equals_nan() -> None:
    assert leaves({"float": "nan"}, math.nan) == {}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"slot": "a"},
        {"slot": 2},
        {"slot": -1},
        {"float": "many"},
        {"torch": "float33"},
        {"torch": "zeros"},
        {"device": "moon"},
        {"tuple": 3},
        {"dict": [["a"]]},
        {"fields": [], "class": "a:B", "by": "magic"},
        {"size": "2 *"},
        {"size": "unknown"},
    ],
)
def test_a_malformed_tree_is_refused(tree: Any) -> None:
    with pytest.raises(ManifestError):
        parse(tree, (), 2)


@pytest.mark.parametrize("by", ["position", "keyword", "attribute"])
def test_a_class_that_cannot_be_imported_gets_a_look_alike(by: str) -> None:
    tree = fields(f"nowhere_{by}:Outer.Inner", by, left=SLOT0, right=SLOT1)
    with pytest.warns(UserWarning, match=f"cannot import nowhere_{by}:Outer.Inner") as caught:
        first, second = build(tree), build(tree)
    assert len(caught) == 1
    assert type(first) is type(second)
    assert type(first).__name__ == "Inner"
    assert first.left is X
    assert leaves(tree, first) == {"a.left": X, "a.right": Y}


def test_a_look_alike_takes_the_real_class(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fields("gone:Output", "keyword", logits=SLOT0)
    with pytest.warns(UserWarning, match="cannot import gone:Output"):
        node = parse(tree, (), 2)
    assert [leaf.value for leaf in node.leaves(Output(X), "a")] == [X]


def test_an_import_that_raises_gets_a_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("raising")
    module.__getattr__ = lambda name: 1 / 0  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "raising", module)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        assert build({"dict": [["a", SLOT0]], "class": "raising:Thing"}) == {"a": X}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 8, dtype=torch.int64), "int64[2, 8]"),
        (torch.zeros(()), "float32[]"),
        (None, "None"),
        ((1, 2), "a tuple of 2"),
        (object(), "class object"),
        ("x" * 100, "'" + "x" * 75 + " ..."),
    ],
)
def test_values_are_described_in_a_few_words(value: Any, text: str) -> None:
    assert describe_value(value) == text


def to_tree(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return {"slot": int(value)}
        case tuple():
            return {"tuple": [to_tree(v) for v in value]}
        case list():
            return {"list": [to_tree(v) for v in value]}
        case dict():
            return {"dict": [[k, to_tree(v)] for k, v in value.items()]}
        case _:
            return {"value": value}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.integers(0, 9).map(torch.tensor),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_any_nesting_comes_back(value: Any) -> None:
    tree = to_tree(value)
    node = parse(tree, (), 10)
    tensors = [torch.tensor(i) for i in range(10)]
    assert to_tree(node.build(tensors, {})) == tree
    assert [int(leaf.value) for leaf in node.leaves(value, "a")] == list(slots(node))
