"""How a model is called: arguments to tensors and back, names for them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils import _pytree as pytree
from transformers import DynamicCache

from ir.errors import CaptureError
from ir.objects.signature import Signature, Slot, Tree, bind, call, flatten, forward_parameters, names, output_names

ONE, TWO, THREE = (torch.full((1,), float(i)) for i in (1, 2, 3))


def forward(x: Any, *rest: Any, scale: float = 2.0, **more: Any) -> tuple[Any, ...]:
    return x, rest, scale, more


PARAMETERS = list(inspect.signature(forward).parameters.values())


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Plain:
    """A class that torch does not know."""

    ids: torch.Tensor
    name: str = "plain"
    inside: dict[str, Any] = field(default_factory=dict)


class Output(dict[str, Any]):
    """A class that torch knows without the keys of its children, as those of diffusers are."""


pytree.register_pytree_node(Output, lambda x: (list(x.values()), list(x)), lambda x, keys: Output(zip(keys, x)))  # noqa: B905


def tree(value: Any) -> Tree:
    leaves, spec = flatten(value)
    slots = iter(range(len(leaves)))
    return Tree(spec, tuple(Slot(next(slots)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves))


def test_arguments_by_parameter_with_defaults() -> None:
    assert bind(PARAMETERS, (1, 2, 3), {"other": 4}) == {"x": 1, "rest": (2, 3), "scale": 2.0, "more": {"other": 4}}


def test_what_was_bound_can_be_called() -> None:
    arguments = bind(PARAMETERS, (1, 2, 3), {"other": 4, "scale": 0.5})
    assert call(forward, PARAMETERS, arguments) == (1, (2, 3), 0.5, {"other": 4})


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        bind(PARAMETERS, (), {})


@pytest.mark.parametrize("value", [(ONE, [TWO, {"a": THREE}], None, 5, "text"), Pair(ONE, Pair(TWO, None)), ONE])
def test_a_tree_is_filled_with_what_it_was_made_of(value: Any) -> None:
    tensors = [leaf for leaf in flatten(value)[0] if isinstance(leaf, torch.Tensor)]
    assert tree(value).fill(tensors) == value


def test_objects_that_hold_tensors_are_opened() -> None:
    made = tree(Plain(ONE, inside={"deep": [TWO]})).fill([TWO, THREE])
    assert type(made) is Plain
    assert (made.ids, made.name, made.inside) == (TWO, "plain", {"deep": [THREE]})


def test_objects_without_tensors_are_left_alone() -> None:
    plain = nn.Linear(1, 1), torch.float32, {1, 2}
    assert flatten(plain)[0] == list(plain)


def test_a_cache_of_transformers_is_opened() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    filled = tree(cache).fill([TWO, THREE])
    assert (filled.layers[0].keys, filled.layers[0].values) == (TWO, THREE)
    assert cache.layers[0].keys.shape == (1, 2, 3, 4)


class Unmakeable(dict[str, Any]):
    def __init__(self, x: Any) -> None:
        super().__init__(x=x)


class Endless:
    def __init__(self, x: Any) -> None:
        self.x, self.itself = x, self


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Unmakeable(ONE), r"a Unmakeable among the arguments or results cannot be made again .* use a plain dict"),
        (Endless(ONE), "an object among the arguments or results holds itself"),
    ],
)
def test_objects_that_cannot_be_opened(value: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        flatten(value)


def test_a_packed_sequence_has_names_without_being_made_of_numbers() -> None:
    packed = pack_padded_sequence(torch.ones(2, 3, 4), torch.tensor([3, 1]), batch_first=True)
    assert names(tree({"p": packed})) == ["p.data", "p.batch_sizes"]


def test_names_are_the_way_to_each_tensor() -> None:
    value = {"ids": ONE, "pair": Pair(TWO, [THREE, None]), "more": Plain(ONE), "scale": 2.0}
    assert names(tree(value)) == ["ids", "pair.left", "pair.right.0", "more.ids"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ONE, ["output"]),
        ((ONE, [TWO]), ["output.0", "output.1.0"]),
        (torch.ones(2).max(0), ["values", "indices"]),
        ({"logits": ONE, "hidden": (TWO, THREE)}, ["logits", "hidden.0", "hidden.1"]),
        (Output(sample=ONE, rest=[TWO]), ["sample", "rest.0"]),
    ],
)
def test_names_of_outputs(value: Any, expected: list[str]) -> None:
    assert output_names(Signature((), tree({}), tree(value))) == expected


def test_a_call_is_bound_to_the_tensors_in_order() -> None:
    arguments = tree(bind(PARAMETERS, (ONE, TWO), {"scale": 1.0, "other": {"deep": THREE}}))
    signature = Signature(tuple(PARAMETERS), arguments, tree(()))
    bound = signature.bind((THREE, ONE), {"other": {"deep": TWO}, "scale": 1.0})
    assert [int(t) for t in bound] == [3, 1, 2]


def test_the_parameters_of_forward_are_without_self() -> None:
    assert [p.name for p in forward_parameters(nn.Linear(1, 1))] == ["input"]
