"""Predicted times of stages beside measured ones, on two shares of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from ir.machine.cluster import Cluster
from runtime.measure.__main__ import main
from tests.benchmarks.report import Table
from tests.benchmarks.running.prediction import COLUMNS, Entry, gpt2, llama, predict_and_run, resnet50, t5, text

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOFLINE, PROFILED = 0.2, 0.1  # the largest error, relative to what was measured

MODELS = {
    "GPT-2, 2 × 64": Entry(gpt2, lambda: text(2, 64)),
    "ResNet-50, 2": Entry(resnet50, lambda: {"pixel_values": torch.randn(2, 3, 224, 224)}),
    "T5-small, 2 × 64 + 64": Entry(t5, lambda: text(2, 64, 64)),
    "Llama-like, 2 × 128": Entry(
        partial(
            llama,
            hidden_size=512,
            intermediate_size=1792,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=8000,
        ),
        lambda: text(2, 128),
    ),
}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    command = "pytest tests/benchmarks/running/test_prediction.py -s"
    table = Table("prediction", command, (*COLUMNS, "target"), complete=2 * len(MODELS))
    yield table
    table.publish()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    file = tmp_path_factory.mktemp("measured") / "cluster.toml"
    assert main(["-o", str(file), "--devices", "cpu,cpu", "--threads", "1"]) == 0
    return Cluster.read(file)


@pytest.mark.parametrize("name", MODELS)
def test_a_stage_takes_what_was_predicted(name: str, cluster: Cluster, table: Table, tmp_path: Path) -> None:
    rows, _ = predict_and_run(name, MODELS[name], cluster, tmp_path / "out", in_flight=4)
    for row in rows:
        met = [error <= target for error, target in zip(row.errors, (ROOFLINE, PROFILED), strict=True)]
        verdict = " and ".join("met" if m else "missed" for m in met)
        table.add(*row.cells(), f"{ROOFLINE:.0%} and {PROFILED:.0%}: {verdict}")
    assert max(row.errors[0] for row in rows) <= ROOFLINE
    assert max(row.errors[1] for row in rows) <= PROFILED
