"""Times of repeated calls, with pauses between them."""

from __future__ import annotations

import pytest
import torch

from runtime.measure import timing


def test_a_device_rests_for_a_share_of_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def call() -> None:
        now[0] += 0.25

    monkeypatch.setattr(timing.time, "sleep", sleep)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "measuring_clock", lambda _: lambda: lambda at=now[0]: at)
    assert timing.median_seconds(call, torch.device("cpu"), 10.0, rest=0.5) == 0.25
    assert set(slept) == {0.5 * 4 * 0.25}  # a trial is four calls, a tenth of the time that there is
    assert sum(slept) / now[0] == pytest.approx(1 / 3, rel=0.1)
