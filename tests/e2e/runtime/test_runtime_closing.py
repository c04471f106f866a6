"""The end of a pipeline: closed, forgotten, interrupted, or given up as a stage hangs."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from runtime import Pipeline, PipelineClosed, StageError
from tests.support.artifacts.by_hand import Part, batches, chain, signals, write
from tests.support.patience import PATIENCE

X = torch.arange(8.0).reshape(2, 4)


def test_a_closed_pipeline_says_so(tmp_path: Path) -> None:
    pipe = Pipeline.load(chain(tmp_path))
    results = pipe.map([X] * 9, in_flight=2)
    next(results)
    pipe.close()
    pipe.close()
    for use in (lambda: pipe(X), lambda: pipe.submit(X), lambda: pipe.map([X]), pipe.reset):
        with pytest.raises(PipelineClosed, match="this pipeline is closed"):
            use()
    with pytest.raises(PipelineClosed):
        list(results)


def pipeline_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("model ")]


def test_closing_ends_the_threads(tmp_path: Path) -> None:
    with Pipeline.load(chain(tmp_path)):
        assert {t.name for t in pipeline_threads()} == {"model collector", "model stage 0", "model stage 1"}
    assert pipeline_threads() == []


def test_a_forgotten_pipeline_ends_its_threads(tmp_path: Path) -> None:
    pipe = Pipeline.load(chain(tmp_path))
    threads = pipeline_threads()
    pipe(X)
    del pipe
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE)
    assert pipeline_threads() == []


def test_a_batch_in_flight_keeps_its_pipeline(tmp_path: Path) -> None:
    assert torch.equal(Pipeline.load(chain(tmp_path)).submit(X).result(), (X + 1) * 2)


BLOCKING = Part(
    "from tests.support.artifacts.by_hand import signals\nsignals.started.set()\nsignals.go_on.wait(30)\nreturn (x,)",
    {"x": None},
    {"y": ((), (0,))},
)


def test_closing_fails_what_is_in_flight(tmp_path: Path) -> None:
    signals.renew()
    pipe = Pipeline.load(write(tmp_path, [BLOCKING]))
    futures = [pipe.submit(X) for _ in range(3)]
    signals.started.wait(PATIENCE)
    closing = threading.Thread(target=pipe.close)
    closing.start()
    for future in futures:
        with pytest.raises(PipelineClosed, match="closed before this batch was done"):
            future.result(PATIENCE)
    signals.go_on.set()
    closing.join()
    assert pipeline_threads() == []


HANGING = Part(
    "from tests.support.artifacts.by_hand import signals\nif h[0, 0] == 3: signals.go_on.wait(30)\nreturn (h,)",
    {"h": 0},
    {"y": ((), (0,))},
)


def test_a_stage_that_hangs_is_given_up_and_named(tmp_path: Path) -> None:
    signals.renew()
    first = Part("return (x,)", {"x": None}, {"h": ((1,), ())})
    pipe = Pipeline.load(write(tmp_path, [first, HANGING]), timeout=1.0)
    futures = [pipe.submit(x) for x in batches(6)]
    assert [float(f.result()[0, 0]) for f in futures[:3]] == [0, 1, 2]
    for future in futures[3:]:
        with pytest.raises(
            StageError, match=r"stage 1 \(cpu\) raised TimeoutError: it is busy with one batch for more"
        ):
            future.result(PATIENCE)
    for use in (lambda: pipe(X), pipe.reset):
        with pytest.raises(PipelineClosed, match=r"is closed, as stage 1 \(cpu\) raised TimeoutError.*; load it again"):
            use()
    signals.go_on.set()
    pipe.close()
    assert pipeline_threads() == []


def test_a_slow_stream_is_not_taken_for_a_stage_that_hangs(tmp_path: Path) -> None:
    slow = Part("time.sleep(0.1)\nreturn (x,)", {"x": None}, {"y": ((), (0,))})
    with Pipeline.load(write(tmp_path, [slow]), timeout=1.0) as pipe:
        assert len(list(pipe.map(batches(12)))) == 12


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_some_time(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(ValueError, match="it must be a number of seconds above 0, or None"):
        Pipeline.load(chain(tmp_path), timeout=timeout)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a process whose parent left SIGINT ignored or deadly."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_waiting_leaves_the_pipeline_usable(tmp_path: Path) -> None:
    signals.renew()
    with Pipeline.load(write(tmp_path, [BLOCKING])) as pipe:
        future = pipe.submit(X)
        signals.started.wait(PATIENCE)
        main = threading.get_ident()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGINT)).start()
            future.result(PATIENCE)
        signals.go_on.set()
        assert torch.equal(future.result(PATIENCE), X)
        assert torch.equal(pipe(X), X)


def test_an_interrupt_while_sending_closes_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Pipeline.load(chain(tmp_path)) as pipe:
        monkeypatch.setattr("runtime.engine.engine.send_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipe(X)
        with pytest.raises(PipelineClosed):
            pipe(X)


def test_tensors_of_a_batch_are_let_go(tmp_path: Path) -> None:
    signals.renew()
    see = f"{SEEING}signals.seen.append(weakref.ref({{value}}))\n"
    parts = [
        Part(see.format(value="x") + "return x + 1, x + 2", {"x": None}, {"a": ((1,), ()), "b": ((2,), ())}),
        Part(see.format(value="a") + "return (a + 1,)", {"a": 0}, {"c": ((2,), ())}),
        Part(see.format(value="b") + "return (b + c,)", {"c": 1, "b": 0}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts)) as pipe:
        for _ in pipe.map(x + 0 for x in batches(8)):
            pass
        pipe(X)
        assert len(signals.seen) == 27
        assert [ref() is None for ref in signals.seen[:24]] == [True] * 24


def test_a_closed_pipeline_keeps_no_stage(tmp_path: Path) -> None:
    """Its weights are free, whoever still holds the pipeline."""
    signals.renew()
    see = f"{SEEING}signals.seen.append(weakref.ref(self))\n"
    pipe = Pipeline.load(write(tmp_path, [Part(see + "return (x + 1,)", {"x": None}, {"y": ((), (0,))})]))
    pipe(X)
    assert signals.seen[0]() is not None
    pipe.close()
    gc.collect()
    assert signals.seen[0]() is None


def test_a_thread_that_fails_closes_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stage raises is an answer; what its thread raises besides would leave callers waiting."""

    def fail(*_: object) -> None:
        raise OSError("no more threads")

    monkeypatch.setattr("runtime.engine.worker.send_all", fail)
    with Pipeline.load(chain(tmp_path)) as pipe:
        with pytest.raises(StageError, match=r"^stage 0 \(cpu\) raised OSError: no more threads$"):
            pipe.submit(torch.ones(1, 4)).result(timeout=PATIENCE)
        with pytest.raises(PipelineClosed, match="this pipeline is closed, as stage 0"):
            pipe(torch.ones(1, 4))


SEEING = "import weakref\nfrom tests.support.artifacts.by_hand import signals\n"
WAITS = "from tests.support.artifacts.by_hand import signals\nsignals.go_on.wait(30)\nreturn (x,)"


def test_a_future_whose_callback_ends_the_thread_leaves_no_other_waiting(tmp_path: Path) -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    signals.renew()
    with Pipeline.load(write(tmp_path, [Part(WAITS, {"x": None}, {"y": ((), (0,))})])) as pipe:
        first, *others = [pipe.submit(X) for _ in range(4)]
        for future in (first, others[0]):
            future.add_done_callback(leave)
        signals.go_on.set()
        assert torch.equal(first.result(timeout=PATIENCE), X)
        for future in others:
            with pytest.raises(RuntimeError, match=r"^SystemExit\(3\)$"):
                future.result(timeout=PATIENCE)
        with pytest.raises(PipelineClosed, match=r"closed, as SystemExit\(3\)"):
            pipe(X)
