"""Tests draw the same in each run, alone or among others, in whatever order."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import pytest
import torch

from tests.conftest import OF_A_TERMINAL
from tests.support.seeds import made_once, own_draws, seed

AT_IMPORT = torch.rand(3)


def drawn() -> list[float]:
    return [*torch.rand(3).tolist(), random.random(), np.random.rand()]


def first_draws() -> list[float]:
    with own_draws():
        return drawn()


@pytest.fixture(scope="module", params=[0, 1])
def made_for_many() -> list[float]:
    return drawn()


@made_once
def model(width: int) -> list[float]:
    return [float(width), *drawn()]


@pytest.mark.parametrize("before", [0, 5])
def test_what_is_made_once_does_not_depend_on_the_draws_before_it(before: int) -> None:
    torch.rand(before)
    assert model(before) == [before, *first_draws()]


def test_a_test_draws_the_same_whether_a_model_was_made_before_or_is_now() -> None:
    found = list[list[float]]()
    for _ in range(2):
        seed()
        model(7)
        found.append(drawn())
    assert found == [first_draws()] * 2


def test_fixtures_of_a_file_and_the_file_itself_draw_as_if_they_were_first(made_for_many: list[float]) -> None:
    assert made_for_many == first_draws()
    assert AT_IMPORT.tolist() == first_draws()[:3]


def test_a_test_begins_with_the_first_draws() -> None:
    assert drawn() == first_draws()


def test_sets_of_texts_have_one_order() -> None:
    assert os.environ["PYTHONHASHSEED"]


@pytest.mark.parametrize("turn", [0, 1])
def test_what_a_test_adds_around_it_is_gone_in_the_next(turn: int) -> None:
    assert "nowhere" not in sys.path
    assert "STAGECUT_TEST" not in os.environ
    assert not {*OF_A_TERMINAL} & {*os.environ}
    sys.path.append("nowhere")
    os.environ["STAGECUT_TEST"] = os.environ["COLUMNS"] = "7"
