"""Sizes of calls in words."""

from __future__ import annotations

import pytest

from ir.text.call_sizes import better_lines, format_mix, format_share

SMALL, LONG = {"batch": 1, "seq": 8}, {"batch": 2, "seq": 4096}


@pytest.mark.parametrize(
    ("share", "text"), [(0.7, "70 %"), (0.0431, "4.3 %"), (0.333, "33 %"), (1.09, "109 %"), (0.002, "0.2 %")]
)
def test_a_share(share: float, text: str) -> None:
    assert format_share(share) == text


def test_one_kind_of_call_needs_no_share() -> None:
    assert format_mix([(SMALL, 1.0)]) == "batch 1, seq 8"
    assert format_mix([(SMALL, 0.7), (LONG, 0.3)]) == "70 % batch 1, seq 8; 30 % batch 2, seq 4096"


def test_the_two_largest_gains_stand_beside_a_table() -> None:
    lines = list(better_lines([(SMALL, 0.11), (LONG, 0.05), (LONG, 0.04), (SMALL, 0.04)]))
    assert lines == [
        "at batch 1, seq 8 another cut is 11 % better: --workload batch=1,seq=8",
        "at batch 2, seq 4096 another cut is 5 % better: --workload batch=2,seq=4096",
        "and at 2 other sizes by less; the report lists them",
    ]
    assert list(better_lines([(SMALL, 0.11), (LONG, 0.05)])) == lines[:2]
