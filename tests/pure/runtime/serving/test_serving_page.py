"""The data of a server's page: loads of stages, requests of the last minute, devices of replicas."""

from __future__ import annotations

import pytest

from runtime.errors import InputError
from runtime.serving.engines.observation import StageLoad, stage_loads
from runtime.serving.engines.replicas import devices_of_each
from runtime.serving.front.recent import RecentRequests
from runtime.trace.traces import Run


def test_loads_are_shares_of_the_window_and_waits_by_littles_law() -> None:
    first = [Run(0, n, float(n), float(n), n + 1.0, {None: 4}, 4) for n in range(3)]
    second = [Run(1, n, a, a, a + 2.0, {0: 4}, 4) for n, a in enumerate((1.0, 3.0, 5.0))]
    # Batch 1 is made at 2 and begins at 3, batch 2 is made at 3 and begins at 5: 3 seconds of waiting.
    assert stage_loads(first + second, 2, seconds=10.0, in_flight=2.0) == [
        StageLoad(0.3, 2.0 - 0.3 - 0.6 - 0.3, 3),
        StageLoad(0.6, 0.3, 3),
    ]


def test_an_idle_pipeline_has_no_load() -> None:
    assert stage_loads([], 2, seconds=1.0, in_flight=0.0) == [StageLoad(0.0, 0.0, 0)] * 2


def test_only_the_last_minute_of_requests_to_the_model_counts() -> None:
    now = 0.0
    recent = RecentRequests(lambda: now)
    recent.note("infer", 200, 9.0)
    now = 100.0
    for seconds, status in ((0.1, 200), (0.2, 200), (0.3, 200), (0.001, 429)):
        recent.note("infer", status, seconds)
    recent.note("live", 200, 0.0)
    assert recent.summary() == {
        "up": 100.0, "rate": 4 / 60, "median": 0.2, "p99": 0.3, "statuses": {"200": 4, "429": 1}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "planned", "replicas", "each"),
    [
        ([], ["cuda:0", "cuda:1"], 1, [[]]),
        ([], ["cuda:0", "cuda:1", "cuda:1"], 2, [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (["cuda:4"], ["cuda:0", "cuda:1"], 2, [["cuda:4"], ["cuda:5"]]),
        (
            ["cuda:0", "cuda:2", "cuda:4", "cuda:6"],
            ["cuda:0", "cuda:1"],
            2,
            [["cuda:0", "cuda:2"], ["cuda:4", "cuda:6"]],
        ),
        ([], ["cpu:0", "cpu:1"], 2, [["cpu", "cpu"], ["cpu", "cpu"]]),
    ],
)
def test_each_replica_has_devices_of_its_own(
    devices: list[str], planned: list[str], replicas: int, each: list[list[str]]
) -> None:
    assert devices_of_each(devices, planned, replicas) == each


def test_devices_that_are_no_equal_parts_are_refused() -> None:
    with pytest.raises(InputError, match="3 devices are no equal parts for 2 replicas"):
        devices_of_each(["a", "b", "c"], ["cuda:0"], 2)
