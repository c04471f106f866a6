"""Differences of results that rounding explains."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from passes.compilation.rounding import EXACT, Rounding, distance, rounding_between

ONES, NAN, INF = torch.ones(3), torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (ONES, ONES.clone(), EXACT),
        (ONES, ONES + 2**-20, Rounding(2**-20, "float32")),
        (ONES * 100, ONES * 100 + 2**-10, Rounding(2**-10, "float32")),
        (ONES, ONES + 2**-10, None),
        (ONES.half(), (ONES + 2**-8).half(), Rounding(2**-8, "float16")),
        (ONES.bfloat16(), (ONES + 2**-5).bfloat16(), Rounding(2**-5, "bfloat16")),
        (ONES.double(), ONES.double() + 2**-20, None),
        (ONES + 0j, ONES + 2**-20 * 1j, Rounding(2**-20, "complex64")),
        (ONES + 0j, ONES + 2**-10 * 1j, None),
        (NAN, NAN + 2**-20, Rounding(2**-20, "float32")),
        (NAN, INF, None),
        (INF, -INF, None),
        (INF, torch.tensor([1.0, 2.0]), None),
        (ONES, ONES[:2], None),
        (ONES, ONES.double(), None),
        (ONES.int(), ONES.int() + 1, None),
        (ONES.to(torch.float8_e5m2), (ONES * 2).to(torch.float8_e5m2), None),
        (ONES, 1.0, None),
        (2, 2, EXACT),
        (2, 2.0, None),
    ],
)
def test_what_is_taken_for_rounding(a: Any, b: Any, found: Rounding | None) -> None:
    assert rounding_between(a, b) == found


def test_the_largest_rounding_is_said_with_its_bound() -> None:
    most = max(EXACT, Rounding(1e-7, "float32"))
    assert str(most) == "within 1e-07 (another order of rounding: float32, at most 3e-05 of the largest)"
    assert str(EXACT) == "bit for bit"


def test_the_distance_of_numbers_of_eight_bits() -> None:
    assert distance(ONES.to(torch.float8_e4m3fn), (ONES * 2).to(torch.float8_e4m3fn)) == 1
