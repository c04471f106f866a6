"""Requests that run as one batch: who may, how rows are padded, and what each gets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from runtime.manifest.manifest import Microbatching, PaddedInput, Padding, ProgramEntry, Symbol, Tensor
from runtime.serving.arrays import Array
from runtime.serving.batching import Batching
from runtime.serving.engines.tensors import array_of, tensor_of

INPUTS = (Tensor("ids", "int64", ("batch", "seq")), Tensor("mask", "int64", ("batch", "seq")))
OUTPUTS = (Tensor("all", "float32", ("batch", "seq", 3)), Tensor("one", "float32", ("batch", 3)))
PADDING = Padding("seq", (PaddedInput("ids", 1, 7), PaddedInput("mask", 1, mask=True)), {"all": (1,)}, "")
SYMBOLS = {"batch": Symbol(1, None, 2), "seq": Symbol(2, 40, 8)}
ROWS = Microbatching("batch", (0, 0), (0, 0), "")


def batching(padding: Padding = PADDING, rows: Microbatching = ROWS) -> Batching:
    signature: Any = None
    program = ProgramEntry("main", INPUTS, OUTPUTS, SYMBOLS, (), signature, (), {}, rows, padding)
    return Batching.of([program])


def asked(*ids: Sequence[int], mask: Sequence[Sequence[int]] = ()) -> dict[str, Array]:
    rows = torch.tensor(ids)
    return {"ids": array_of(rows), "mask": array_of(torch.tensor(mask) if mask else torch.ones_like(rows))}


def test_rows_of_one_bucket_are_padded_to_it_and_cut_to_their_lengths() -> None:
    parts = [asked([1, 2, 3]), asked([4, 5], [6, 7]), asked([1, 2, 3], mask=[[1, 0, 0]])]
    found = batching()
    assert len({found.key(part) for part in parts}) == 1
    joined = {name: tensor_of(array) for name, array in found.joined(parts).items()}
    assert joined["ids"].tolist() == [
        [1, 2, 3, 7, 7, 7, 7, 7], [4, 5, 7, 7, 7, 7, 7, 7], [6, 7, 7, 7, 7, 7, 7, 7], [1, 2, 3, 7, 7, 7, 7, 7]
    ]  # fmt: skip
    assert joined["mask"].sum(1).tolist() == [3, 2, 2, 1]
    outputs = {"all": torch.randn(4, 8, 3), "one": torch.randn(4, 3)}
    got = found.split({name: array_of(t) for name, t in outputs.items()}, parts)
    for own, (start, rows, length) in zip(got, [(0, 1, 3), (1, 2, 2), (3, 1, 3)], strict=True):
        assert torch.equal(tensor_of(own["all"]), outputs["all"][start : start + rows, :length])
        assert torch.equal(tensor_of(own["one"]), outputs["one"][start : start + rows])


def test_outputs_are_cut_along_each_dimension_of_that_length() -> None:
    weights = torch.randn(2, 3, 8, 8)
    found = batching(replace(PADDING, outputs={"all": (2, 3)}))
    first, second = found.split({"all": array_of(weights)}, [asked([1, 2, 3]), asked([1, 2])])
    assert torch.equal(tensor_of(first["all"]), weights[:1, :, :3, :3])
    assert torch.equal(tensor_of(second["all"]), weights[1:, :, :2, :2])


def test_the_sizes_of_each_request_say_which_rows_and_elements_are_its_own() -> None:
    found, short, long = batching(), asked([1, 2]), asked([1, 2, 3], [4, 5, 6])
    assert found.sizes([short]) == [{}]
    assert found.sizes([short, long]) == [{"batch": 1, "seq": 2}, {"batch": 2, "seq": 3}]
    assert found.sizes([long, long]) == [{"batch": 2}, {"batch": 2}]
    assert batching(Padding()).sizes([short, short]) == [{"batch": 1}, {"batch": 1}]


def test_rows_of_one_length_are_not_padded() -> None:
    parts = [asked([1, 2, 3]), asked([4, 5, 6])]
    assert tensor_of(batching().joined(parts)["ids"]).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert batching().joined(parts[:1]) is parts[0]


@pytest.mark.parametrize(
    ("length", "bucket"), [(2, 8), (8, 8), (9, 12), (13, 16), (17, 24), (25, 32), (33, 40), (40, 40)]
)
def test_buckets_are_few_and_no_longer_than_the_model_takes(length: int, bucket: int) -> None:
    assert batching().bucket(length) == bucket


LONG = [1] * 41

ALONE = {
    "too short": asked([1]),
    "too long": asked(LONG),
    "lengths that differ": {"ids": asked([1, 2, 3])["ids"], "mask": asked([1, 2])["mask"]},
    "a mask with a hole": asked([1, 2, 3], mask=[[1, 0, 1]]),
    "a mask of nothing": asked([1, 2, 3], [1, 2, 3], mask=[[1, 1, 1], [0, 0, 0]]),
    "a mask of other numbers": asked([1, 2, 3], mask=[[2, 0, 0]]),
}


@pytest.mark.parametrize("what", ALONE)
def test_what_was_not_proven_is_not_padded(what: str) -> None:
    found, arrays = batching(), ALONE[what]
    right = asked([1, 2, 3], [1, 2, 3]) if what == "a mask of nothing" else asked([1, 2, 3])
    assert found.key(arrays) != found.key(right)
    assert found.key(arrays) == found.key({**arrays})  # equal shapes may go together


def test_without_a_proof_only_equal_shapes_go_together() -> None:
    found = batching(Padding())
    assert found.key(asked([1, 2, 3])) != found.key(asked([1, 2]))
    assert found.key(asked([1, 2, 3])) == found.key(asked([4, 5, 6]))
    assert batching(rows=Microbatching()).key(asked([1, 2])) is None
