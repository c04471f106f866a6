"""Stages on threads of one process, or in processes of their own: which, and how many."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from runtime import InputError, Pipeline, running_stages
from runtime.device import ipc
from runtime.errors import DeviceError
from runtime.manifest.manifest import Manifest, Operator
from runtime.processes import choice, owner
from runtime.processes.choice import LEAST_BYTES, LEAST_SECONDS, processes_of, reach_next
from runtime.processes.start import start_member
from tests.support.artifacts.by_hand import Part, write

CPU = torch.device("cpu")


def manifest(folder: Path, planned: str = "cpu:0 cpu:1", nbytes: float = LEAST_BYTES, seconds: float = 1.0) -> Manifest:
    devices = planned.split()
    last = len(devices) - 1
    names = ["x", *"abcdefgh"[:last], "y"]
    parts = [
        Part(
            f"return ({names[i]},)",
            {names[i]: i - 1 if i else None},
            {names[i + 1]: ((), (0,)) if i == last else ((i + 1,), ())},
            device=device,
        )
        for i, device in enumerate(devices)
    ]
    found = Manifest.read(write(folder, parts))
    stages = tuple(replace(stage, nbytes=int(nbytes)) for stage in found.stages)
    return replace(found, stages=stages, plan={"bottleneck_seconds": seconds})


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_cores", lambda: 4)


def test_several_accelerators_have_a_process_each(tmp_path: Path) -> None:
    small = manifest(tmp_path, "cuda:0 cuda:0 cuda:1", nbytes=0, seconds=0.0)
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    assert processes_of(small, [first, first, second], None) == (1, 1, 2)
    assert processes_of(small, [first] * 3, None) == ()
    assert processes_of(small, [first] * 3, True) == (1, 1, 1)
    assert processes_of(small, [first, first, second], False) == ()
    decoder = replace(small, generation=replace(small.generation, page=16))
    assert processes_of(decoder, [first, first, second], None) == (0, 0, 1)
    assert processes_of(decoder, [first] * 3, None) == ()
    assert processes_of(decoder, [CPU, first], None) == ()  # which share no memory, as is known without a try
    assert processes_of(decoder, [CPU, first], True) == (0, 1)
    assert processes_of(decoder, [first, first, second], False) == ()
    assert processes_of(decoder, [first, first, second], True) == (0, 0, 1)
    assert processes_of(decoder, [first] * 3, True) == (1, 1, 1)


@pytest.mark.parametrize(
    ("planned", "nbytes", "seconds", "found"),
    [
        ("cpu:0 cpu:1", LEAST_BYTES, LEAST_SECONDS, (1, 2)),
        ("cpu cpu cpu", LEAST_BYTES, LEAST_SECONDS, (1, 2, 3)),
        ("cpu cpu cpu cpu cpu cpu", LEAST_BYTES, LEAST_SECONDS, (1, 1, 2, 3, 3, 4)),  # as many as there are cores
        ("cpu:0 cpu:1", LEAST_BYTES / 2, LEAST_SECONDS, ()),
        ("cpu:0 cpu:1", LEAST_BYTES, LEAST_SECONDS / 2, ()),
        ("cuda:0 cuda:1", LEAST_BYTES, LEAST_SECONDS, ()),  # the seconds are those of other devices
        ("cpu", LEAST_BYTES, LEAST_SECONDS, ()),
    ],
)
def test_large_stages_on_cpus_have_processes(
    tmp_path: Path, planned: str, nbytes: float, seconds: float, found: tuple[int, ...]
) -> None:
    given = manifest(tmp_path, planned, nbytes, seconds)
    assert processes_of(given, [CPU] * len(given.stages), None) == found


def test_what_another_process_could_not_run_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Operator("mine::op", module="", library="", version="", stages=(0,))
    given = replace(manifest(tmp_path), operators=(own,))
    assert processes_of(given, [CPU] * 2, None) == ()
    with pytest.raises(DeviceError, match=r"in processes of their own: the operator mine::op is registered in this"):
        processes_of(given, [CPU] * 2, True)
    monkeypatch.setattr(sys, "executable", "")
    assert processes_of(manifest(tmp_path), [CPU] * 2, None) == ()


def test_a_way_that_there_is_not_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [Part("return (x,)", {"x": None}, {"y": ((), (0,))})])
    with pytest.raises(InputError, match='outputs is \'away\'; it must be "return" or "stay"'):
        Pipeline.load(tmp_path, outputs="away")
    with pytest.raises(InputError, match="processes is 2; it must be True, False or None"):
        Pipeline.load(tmp_path, processes=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"prefill_share is 1\.5; it must be a number above 0 and at most 1"):
        Pipeline.distributed(tmp_path, rank=0, world=1, address="127.0.0.1:1", prefill_share=1.5)


def test_only_accelerators_that_reach_each_other_share_memory() -> None:
    assert not ipc.is_shareable(CPU, CPU)
    assert not ipc.is_shareable(torch.device("xpu:0"), torch.device("xpu:1"))  # a kind without calls for it
    assert not ipc.is_shareable(torch.device("xpu:0"), CPU)


def test_accelerators_in_a_ring_reach_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (torch.device("cuda", i) for i in range(3))
    asked: list[tuple[torch.device, torch.device]] = []

    def is_shareable(source: torch.device, target: torch.device) -> bool:
        asked.append((source, target))
        return (source, target) != (c, a)

    monkeypatch.setattr(choice, "is_shareable", is_shareable)
    assert reach_next([a, a, b])
    assert asked == [(a, b), (b, a)]
    assert not reach_next([a, b, c])


@pytest.mark.parametrize(("reach", "copied"), [(True, True), (True, False), (False, True), (False, False)])
def test_this_process_has_stages_beside_others_where_no_host_is_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reach: bool, copied: bool
) -> None:
    parts = [
        Part("return (x + 1,)", {"x": None}, {"a": ((1,), ())}),
        Part("return (a * 2,)", {"a": 0}, {"y": ((), (0,))}),
    ]
    write(tmp_path, parts)
    monkeypatch.setattr(running_stages, "processes_of", lambda *_: (0, 1))
    monkeypatch.setattr(owner, "reach_next", lambda _: reach)
    monkeypatch.setattr(owner, "can_be_copied", lambda: copied)
    started: list[int] = []
    monkeypatch.setattr(owner, "start_member", lambda *given: started.append(1) or start_member(*given))
    (tmp_path / "stage_0.py").write_text((tmp_path / "stage_0.py").read_text() + "\n")
    before = {*psutil.Process().children()}
    with pytest.warns(UserWarning, match="was edited") as warned:
        pipe = Pipeline.load(tmp_path)
    with pipe:
        assert len({*psutil.Process().children()} - before) == reach
        assert [*pipe.pids.values()] == ([(1,)] if reach else [])
        assert torch.equal(pipe(torch.ones(2, 4)), torch.full((2, 4), 4.0))
    assert len(started) == (reach or copied)  # a new Python is not started in vain
    assert len(warned) == 1
