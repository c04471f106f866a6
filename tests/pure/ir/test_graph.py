"""Nodes and values of a graph."""

from __future__ import annotations

import torch

from ir.graph import Call, Value
from ir.operators.facts import aten
from ir.sizes import TensorType


def test_arguments_are_by_schema_name_with_defaults_whether_given_by_place_or_by_name() -> None:
    x, y, z = (Value(name, TensorType((2, 3), torch.float32)) for name in "xyz")
    by_place = Call(op=aten.add.Tensor, args=(x, y), results=(z,))
    by_name = Call(op=aten.add.Tensor, args=(x,), kwargs={"alpha": 2, "other": y}, results=(z,))
    assert list(by_place.arguments.items()) == [("self", x), ("other", y), ("alpha", 1)]
    assert list(by_name.arguments.items()) == [("self", x), ("other", y), ("alpha", 2)]
