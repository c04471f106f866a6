"""Architectures that differ most, cut in three: the stages return what the model does, at sizes never seen."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.zoo import KINDS, MODELS
from tests.zoo.__main__ import COVERAGE, Worker
from tests.zoo.measure import STAGES, Result, measure
from tests.zoo.table import coverage, recorded

# Experts, two towers of text with tied weights, windows, a detector, sound, an image among words; skip connections are
# the example of a UNet's, and that of GPT-2 is a plain decoder.
VARIED = (
    "mixtral",
    "t5",
    "swin",
    "detr",
    "whisper",
    "llava",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_an_architecture_runs_in_three_stages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.zoo.measure.SEARCH", {"time_limit": 0.1, "size_limit": 0.0})  # any cut will do
    result = measure(name, MODELS[name])
    assert result.good, result
    assert result.stages == STAGES


def test_every_model_of_the_zoo_has_its_own_name() -> None:
    assert sum(map(len, KINDS.values())) == len(MODELS)


@pytest.mark.parametrize(
    ("code", "timeout", "failure"),
    [
        ("import os; input(); os._exit(3)", 60, "its process died, status 3"),
        ("import time; time.sleep(60)", 0.5, "took more than 0.5 s"),
    ],
)
def test_a_model_that_ends_its_process_is_a_row_like_any_other(code: str, timeout: float, failure: str) -> None:
    worker = Worker(timeout, (sys.executable, "-c", code))
    for _ in range(2):  # a new process takes the place of the one that is gone
        assert worker.measure("gpt2") == Result("gpt2", failure=failure)
    worker.close()


def test_the_table_can_be_read_again() -> None:
    """So that a run of some models, on another machine, renews their rows and keeps all others."""
    text = COVERAGE.read_text()
    assert coverage(KINDS, recorded(text), text) == text


def test_versions_are_named_once() -> None:
    rows = {
        name: Result(name, ran="2×18", versions=said) for name, said in {"bert": "torch 2", "gpt2": "torch 1"}.items()
    }
    text = coverage({"All": [*rows]}, rows)
    assert "with torch 1; torch 2." in text
    assert (
        coverage({"All": [*rows]}, {**recorded(text), "gpt2": replace(rows["gpt2"], versions="torch 2")}, text) == text
    )


def test_long_conditions_are_counted() -> None:
    long = "Eq(" + "+".join(["height"] * 9) + ", 2*width)"
    row = Result("gpt2", ran="2×18", notes=f"seq ≥ 2; {long}; Eq(Mod(seq, 2), 0); {long[:-1]})")
    text = coverage({"All": ["gpt2"]}, {"gpt2": row})
    assert ("| 2×18 | seq ≥ 2; Eq(Mod(seq, 2), 0); 2 longer conditions on height and width |\n") in text


def test_the_table_says_what_fails_and_why() -> None:
    good = Result("gpt2", nodes=9, stages=3, cut_bytes=2048, export_seconds=1.25, ran="2×18", notes="seq | stays")
    bad = Result("bert", failure="CaptureError: it branches\n  in layer 3")
    text = coverage({"All": ["gpt2", "bert", "t5"]}, {"gpt2": good, "bert": replace(bad, known="write torch.where")})
    assert "1 of 2 models return what they do uncut, bit for bit.  1 more have not been run yet." in text
    assert "| gpt2 | 9 | 3 | 2.0 KiB | 1.2 s | 0 | 2×18 | seq \\| stays |" in text
    assert "- **bert**: write torch.where\n" in text
    assert "- **bert**: CaptureError: it branches in layer 3" in coverage({"All": ["bert"]}, {"bert": bad})
