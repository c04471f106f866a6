"""Batches for which all stages only launch graphs: the caller's thread does.  Stand-ins of graphs, on the CPU."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import current_thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from runtime import Pipeline
from runtime.engine import engine, worker
from runtime.errors import InputError, PipelineClosed, StageError
from runtime.stage import stage
from runtime.stage.speed import Speed
from runtime.stage.stage import LoadedStage, ShapeKey, StageModule, shape_key
from tests.support.artifacts.by_hand import Part, batches, chain, write
from tests.support.artifacts.stand_in_graphs import StandInDevice, stand_in_graphs
from tests.support.patience import PATIENCE

HERE = "MainThread"


@dataclass
class Launches:
    """The threads that ran stages, and what becomes of the next graph that is launched."""

    threads: list[str] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def faster(self, module: StageModule) -> StageModule:
        """The module with a graph for each shape that it has run once."""
        recorded: set[ShapeKey] = set()

        def call(*tensors: torch.Tensor, **sizes: int) -> object:
            self.threads.append(current_thread().name)
            recorded.add(shape_key(tensors, sizes))
            return module.call(*tensors, **sizes)

        def run(tensors: Sequence[torch.Tensor]) -> object:
            self.threads.append(current_thread().name)
            if self.faults:
                raise self.faults.pop()
            return module.call(*(given.clone() for given in tensors))

        graph = SimpleNamespace(run=run)
        return replace(module, call=call, graphs=lambda key: graph if key in recorded else None)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches()

    def apply(_: Speed, stage: LoadedStage) -> LoadedStage:
        return replace(stage, programs=tuple(map(found.faster, stage.programs)))

    monkeypatch.setattr(Speed, "apply", apply)
    return found


@pytest.fixture
def pipe(tmp_path: Path, launches: Launches) -> Iterator[Pipeline]:
    """y = (x + 1) * 2 in two stages, with graphs for batches of 1 to 3 rows."""
    with Pipeline.load(chain(tmp_path)) as pipe:
        for x in batches(3):
            pipe(x)
        assert HERE not in launches.threads
        launches.threads.clear()
        yield pipe


def of(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) * 2


def test_a_call_needs_no_other_thread(pipe: Pipeline, launches: Launches) -> None:
    x = torch.ones(2, 4)
    assert torch.equal(pipe(x), of(x))
    x += 1  # graphs have no tensor of a batch of before
    assert torch.equal(pipe(x), of(x))
    assert torch.equal(pipe.run_named({"x": x})["y"], of(x))
    assert torch.equal(pipe.run_named({"x": x}, outputs=["y[1, 1:3]"])["y[1, 1:3]"], of(x)[1, 1:3])
    assert torch.equal(pipe(x.t().contiguous().t()), of(x))  # brought into the order of the example
    assert set(launches.threads) == {HERE}


def test_a_stream_of_batches_is_in_order_wherever_they_run(pipe: Pipeline, launches: Launches) -> None:
    given = [*batches(20), torch.ones(5, 4), *batches(20), torch.ones(5, 4)]
    for x, y in zip(given, pipe.map(given), strict=True):
        assert torch.equal(y, of(x))
    assert 0 < launches.threads.count(HERE) < len(launches.threads)  # the first of 5 rows has no graph


def test_large_tensors_are_copied_by_stages_meanwhile(
    pipe: Pipeline, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COPIED_AT_ONCE", 32)
    assert torch.equal(pipe.submit(torch.ones(2, 4)).result(), of(torch.ones(2, 4)))  # 32 bytes
    assert set(launches.threads) == {HERE}
    launches.threads.clear()
    assert torch.equal(pipe.submit(torch.ones(3, 4)).result(), of(torch.ones(3, 4)))
    assert HERE not in launches.threads
    launches.threads.clear()
    assert torch.equal(pipe(torch.ones(3, 4)), of(torch.ones(3, 4)))  # who waits can copy
    assert set(launches.threads) == {HERE}


def test_microbatches_are_launched_too(pipe: Pipeline, launches: Launches) -> None:
    x = torch.arange(24.0).view(6, 4)
    assert torch.equal(pipe(x, microbatches=2), of(x))
    assert HERE in launches.threads


def test_results_are_no_inference_tensors(pipe: Pipeline, launches: Launches) -> None:
    with torch.inference_mode():
        results = pipe(torch.ones(2, 4)), pipe.submit(torch.ones(2, 4)).result()
    assert not any(result.is_inference() or result.requires_grad for result in results)
    assert set(launches.threads) == {HERE}


@pytest.mark.parametrize("run", [lambda pipe, x: pipe(x), lambda pipe, x: pipe.submit(x).result()])
def test_a_fault_is_that_of_its_stage(pipe: Pipeline, launches: Launches, run: Callable[..., Any]) -> None:
    launches.faults.append(torch.OutOfMemoryError("too little memory"))
    with pytest.raises(StageError, match=r"stage 0 \(cpu\) raised OutOfMemoryError: too little memory"):
        run(pipe, torch.ones(2, 4))
    assert torch.equal(run(pipe, torch.ones(2, 4)), of(torch.ones(2, 4)))
    assert set(launches.threads) == {HERE}


@pytest.mark.parametrize("run", [lambda pipe, x: pipe(x), lambda pipe, x: pipe.submit(x).result()])
def test_a_failed_batch_is_let_go(pipe: Pipeline, launches: Launches, run: Callable[..., Any]) -> None:
    gc.disable()  # a cycle would keep its memory until then
    try:
        launches.faults.append(torch.OutOfMemoryError("too little memory"))
        x = torch.ones(2, 4)
        given = weakref.ref(x)
        with pytest.raises(StageError, match="too little memory") as raised:
            run(pipe, x)
        del x, raised
        until = time.monotonic() + PATIENCE
        while given() is not None and time.monotonic() < until:  # the collecting thread has it for a moment
            time.sleep(1e-3)
        assert given() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("run", [lambda pipe, x: pipe(x), lambda pipe, x: pipe.submit(x).result()])
def test_an_interrupt_is_no_fault_of_a_stage(pipe: Pipeline, launches: Launches, run: Callable[..., Any]) -> None:
    launches.faults.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(pipe, torch.ones(2, 4))
    assert torch.equal(run(pipe, torch.ones(2, 4)), of(torch.ones(2, 4)))


def test_an_interrupt_amid_stages_with_state_closes_the_pipeline(tmp_path: Path, launches: Launches) -> None:
    counts = Part("self.n.add_(1)\nreturn (x + self.n,)", {"x": None}, {"y": ((), (0,))}, state=("n",))
    folder = write(tmp_path, [replace(counts, weights={"n": torch.zeros(4)})])
    with Pipeline.load(folder) as pipe:
        pipe(torch.ones(2, 4))
        launches.faults.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            pipe(torch.ones(2, 4))
        assert pipe.closed  # some stages have counted the batch, others have not


def test_an_interrupt_on_the_way_to_the_stages_closes_the_pipeline(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.Engine, "_send_to_stages", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pipe(torch.ones(9, 4))
    assert pipe.closed  # the next batch would have had the future of this one


def test_a_signal_handler_may_call_while_its_thread_waits(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    signals = [1]

    def query() -> bool:
        if signals:
            signals.clear()
            made.append(pipe(torch.ones(1, 4)))
        return True

    monkeypatch.setattr(worker, "made_in", lambda stream: (Mock(query=query),))
    assert torch.equal(pipe(torch.ones(2, 4)), of(torch.ones(2, 4)))
    assert torch.equal(made[0], of(torch.ones(1, 4)))


def test_traced_batches_run_where_they_are_timed(pipe: Pipeline, launches: Launches) -> None:
    with pipe.trace() as trace:
        assert torch.equal(pipe(torch.ones(2, 4)), of(torch.ones(2, 4)))
    assert HERE not in launches.threads
    assert len(trace.runs) == 2
    assert torch.equal(pipe(torch.ones(2, 4)), of(torch.ones(2, 4)))
    assert HERE in launches.threads


def test_what_is_changed_amid_its_batch_is_told(
    pipe: Pipeline, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = Mock(query=Mock(return_value=False))
    monkeypatch.setattr(worker, "made_in", lambda stream: (pending,))
    x = torch.ones(2, 4)
    future = pipe.submit(x)
    x.zero_()
    pending.query.return_value = True
    with pytest.raises(InputError, match="`x` was changed in place while its batch was in flight"):
        future.result()
    assert set(launches.threads) == {HERE}


def test_a_device_that_hangs_is_given_up(tmp_path: Path, launches: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pipeline.load(chain(tmp_path), timeout=0.3) as pipe:
        pipe(torch.ones(2, 4))
        monkeypatch.setattr(worker, "made_in", lambda stream: (Mock(query=Mock(return_value=False)),))
        with pytest.raises(StageError, match=r"stage 0 \(cpu\) raised TimeoutError") as raised:
            pipe(torch.ones(2, 4))
        assert isinstance(raised.value.__cause__, TimeoutError)
        assert launches.threads[-1] == HERE


def test_a_pipeline_is_closed_while_a_caller_waits(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Mock(query=Mock(return_value=False))
    monkeypatch.setattr(worker, "made_in", lambda stream: (pending,))
    pending.query.side_effect = lambda: pipe.close()  # by another thread, or a signal, in the midst of the wait
    with pytest.raises(PipelineClosed, match="the pipeline was closed before this batch was done"):
        pipe(torch.ones(2, 4))


def test_without_flags_a_graph_is_launched_from_the_third_batch_of_a_size_on(tmp_path: Path) -> None:
    with stand_in_graphs(StandInDevice()) as device, Pipeline.load(chain(tmp_path)) as pipe:
        for number, x in enumerate(torch.arange(40.0).view(5, 2, 4)):
            assert torch.equal(pipe(x), of(x))
            assert device.replays == 2 * max(number - 1, 0)  # of two stages


def test_without_flags_nothing_is_recorded_beside_the_code_of_a_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling = Mock(wraps=stage._COMPILING)
    monkeypatch.setattr(stage, "_COMPILING", compiling)
    x = torch.ones(2, 4)
    with stand_in_graphs(StandInDevice()) as device, Pipeline.load(chain(tmp_path)) as pipe:
        for _ in range(5):
            future = pipe.submit(x)
            while not future.done():  # the caller may do anything meanwhile
                time.sleep(1e-3)
            assert torch.equal(future.result(), of(x))
        assert device.replays == 0
        assert not any(call.kwargs["exclusive"] for call in compiling.hold.call_args_list)  # stages run at once
        for _ in range(2):
            assert torch.equal(pipe(x), of(x))
        assert device.replays > 0


def test_what_is_prepared_is_recorded_however_late_its_caller_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = engine.Engine.send

    def send(*args: Any, **options: Any) -> Any:
        future = sent(*args, **options)
        wait([future])
        return future

    monkeypatch.setattr(engine.Engine, "send", send)
    with stand_in_graphs(StandInDevice()) as device, Pipeline.load(chain(tmp_path)) as pipe:
        pipe.prepare(batch=2)
        assert device.replays == 2


def test_state_is_that_of_the_batches_before_wherever_they_run(tmp_path: Path) -> None:
    counts = Part("self.n.add_(1)\nreturn (x + self.n,)", {"x": None}, {"h": ((1,), ())}, state=("n",))
    adds = Part("self.m.mul_(2).add_(1)\nreturn (h + self.m,)", {"h": 0}, {"y": ((), (0,))}, state=("m",))
    parts = [replace(counts, weights={"n": torch.zeros(4)}), replace(adds, weights={"m": torch.zeros(4)})]
    with stand_in_graphs(StandInDevice(1e-4)) as device, Pipeline.load(write(tmp_path, parts)) as pipe:
        for _ in range(12):
            n, m, futures = 0, 0, []
            for size in (1, 2, 1, 3, 2, 1):
                n, m, x = n + 1, 2 * m + 1, torch.rand(size, 4)
                if size == 1:
                    assert torch.equal(pipe(x), x + n + m)
                else:
                    futures.append((pipe.submit(x), x + n + m))
            assert all(torch.equal(future.result(), y) for future, y in futures)
            pipe.reset()
        assert device.replays > 0


def test_callers_on_many_threads(pipe: Pipeline) -> None:
    with ThreadPoolExecutor(8) as pool:
        for x, y in zip(batches(200), pool.map(pipe, batches(200)), strict=True):
            assert torch.equal(y, of(x))
