"""Pipelines of hand-made stages: calls, streams, errors, state and the end."""

from __future__ import annotations

import threading
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import InputError, Pipeline, StageError
from runtime.manifest.manifest import Symbol
from tests.support.artifacts.by_hand import Part, batches, chain, tensor, write
from tests.support.patience import PATIENCE

X = torch.arange(8.0).reshape(2, 4)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline.load(chain(tmp_path)) as pipe:
        yield pipe


# What a pipeline computes


def test_a_chain(pipe: Pipeline) -> None:
    assert torch.equal(pipe(X), (X + 1) * 2)
    assert torch.equal(pipe(x=X[:1]), (X[:1] + 1) * 2)


def test_a_skip_over_a_stage(tmp_path: Path) -> None:
    parts = [
        Part("return x + 1, x * 10", {"x": None}, {"a": ((1,), ()), "b": ((2,), ())}),
        Part("return (a * 2,)", {"a": 0}, {"c": ((2,), ())}),
        Part("return (c + b,)", {"b": 0, "c": 1}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts)) as pipe:
        for x, y in zip(batches(20), pipe.map(batches(20)), strict=True):
            assert torch.equal(y, (x + 1) * 2 + x * 10)


def test_a_diamond_whose_first_value_goes_everywhere(tmp_path: Path) -> None:
    parts = [
        Part("return (x + 1,)", {"x": None}, {"a": ((1, 2, 3), (1,))}),
        Part("return (a * 2,)", {"a": 0}, {"b": ((3,), ())}),
        Part("return (a * 3,)", {"a": 0}, {"c": ((3,), ())}),
        Part("return (a + b - c,)", {"c": 2, "a": 0, "b": 1}, {"y": ((), (0,))}),
    ]
    path = write(tmp_path, parts, outputs=[tensor("y"), tensor("a")], returns={"tuple": [{"slot": 0}, {"slot": 1}]})
    with Pipeline.load(path) as pipe:
        y, a = pipe(X)
    assert torch.equal(a, X + 1)
    assert torch.equal(y, a + a * 2 - a * 3)


def test_outputs_of_different_stages_and_an_input_of_the_last(tmp_path: Path) -> None:
    parts = [
        Part("return (x + 1,)", {"x": None}, {"early": ((1,), (1,))}),
        Part("return (early * scale,)", {"early": 0, "scale": None}, {"late": ((), (0, 2))}),
    ]
    inputs, outputs = [tensor("x"), tensor("scale", 4)], [tensor("late"), tensor("early"), tensor("late")]
    returns = {"dict": [["late", {"slot": 0}], ["early", {"slot": 1}], ["again", {"slot": 2}]]}
    with Pipeline.load(write(tmp_path, parts, inputs=inputs, outputs=outputs, returns=returns)) as pipe:
        y = pipe(X, torch.full((4,), 3.0))
    assert torch.equal(y["early"], X + 1)
    assert torch.equal(y["late"], (X + 1) * 3)
    assert y["again"] is y["late"]


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Output:
    logits: Any
    count: int
    loss: Any = None


def test_nested_arguments_and_results(tmp_path: Path) -> None:
    parts = [Part("return (a + b,)", {"a": None, "b": None}, {"y": ((), (0,))})]
    point = {"fields": [["x", {"slot": 0}], ["y", {"value": 2}]], "class": f"{__name__}:Point", "by": "position"}
    path = write(
        tmp_path,
        parts,
        inputs=[tensor("a"), tensor("b")],
        arguments={"dict": [["a", {"list": [point, {"dict": [["k", {"slot": 1}]]}]}], ["b", {"value": "mode"}]]},
        returns={
            "fields": [["logits", {"slot": 0}], ["count", {"size": "4*batch"}], ["loss", {"value": None}]],
            "class": f"{__name__}:Output",
            "by": "keyword",
        },
    )
    with Pipeline.load(path) as pipe:
        y = pipe([Point(X, 2), {"k": X}])
        assert type(y) is Output
        assert torch.equal(y.logits, 2 * X)
        assert y.count == 8
        with pytest.raises(InputError, match=r"`a.0.y` was captured as 2 and is fixed; got 3"):
            pipe([Point(X, 3), {"k": X}])


def test_sizes_are_passed_as_integers(tmp_path: Path) -> None:
    parts = [
        Part("return (x.sum(),)", {"x": None}, {"h": ((1,), ())}),
        Part("return (h.expand(seq, batch),)", {"h": 0}, {"y": ((), (0,))}, sizes=("batch", "seq")),
        Part("return (torch.zeros(seq),)", {}, {"z": ((), (1,))}, sizes=("seq",)),
    ]
    symbols = {"batch": Symbol(1, 9, 2), "seq": Symbol(1, 9, 2)}
    shapes: dict[str, Any] = dict(
        inputs=[tensor("x", "batch", "seq")], outputs=[tensor("y", "seq", "batch"), tensor("z", "seq")]
    )
    returns = {"tuple": [{"slot": 0}, {"slot": 1}, {"size": "seq"}]}
    with Pipeline.load(write(tmp_path, parts, symbols=symbols, returns=returns, **shapes)) as pipe:
        for batch, seq in [(2, 3), (1, 1), (9, 4)]:
            y, z, n = pipe(torch.ones(batch, seq))
            assert torch.equal(y, torch.full((seq, batch), float(batch * seq)))
            assert z.shape == (seq,)
            assert n == seq


def test_no_gradients_are_kept(pipe: Pipeline) -> None:
    assert not pipe(X.clone().requires_grad_()).requires_grad


# Streams


def test_map_takes_tuples_mappings_and_single_arguments(pipe: Pipeline) -> None:
    for y in pipe.map([(X,), {"x": X}, UserDict(x=X), X]):
        assert torch.equal(y, (X + 1) * 2)


def test_map_reads_its_batches_as_results_are_taken(pipe: Pipeline) -> None:
    read = 0

    def source() -> Iterator[torch.Tensor]:
        nonlocal read
        for x in batches(100):
            read += 1
            yield x

    results = pipe.map(source(), in_flight=3)
    assert read == 0
    next(results)
    assert read == 3
    next(results)
    assert read == 4


@pytest.mark.parametrize("in_flight", [0, -1])
def test_map_needs_a_batch_in_flight(pipe: Pipeline, in_flight: int) -> None:
    with pytest.raises(ValueError, match="a whole number of batches, at least 1"):
        pipe.map([X], in_flight=in_flight)


def test_map_of_nothing(pipe: Pipeline) -> None:
    assert list(pipe.map([])) == []


def test_stages_work_at_once(tmp_path: Path) -> None:
    # Stage 0 with batch k+1 and stage 1 with batch k meet at a barrier, which breaks if they never do.
    meet = "from tests.support.artifacts.by_hand import signals\n"
    parts = [
        Part(meet + "if x[0, 0] > 0: signals.meeting.wait()\nreturn (x,)", {"x": None}, {"h": ((1,), ())}),
        Part(meet + "if h[0, 0] < 9: signals.meeting.wait()\nreturn (h,)", {"h": 0}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts)) as pipe:
        results = [float(y[0, 0]) for y in pipe.map(batches(10), in_flight=2)]
    assert results == list(range(10))


SLOW = "time.sleep(float({value}[0, {column}]) / 1000)\n"


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=12), st.integers(1, 6))
def test_order_is_kept_whatever_the_stages_take(tmp_path: Path, delays: list[tuple[int, ...]], in_flight: int) -> None:
    parts = [
        Part(SLOW.format(value="x", column=1) + "return x, x + 1", {"x": None}, {"a": ((1,), ()), "b": ((2,), ())}),
        Part(SLOW.format(value="a", column=2) + "return (a,)", {"a": 0}, {"c": ((2,), ())}),
        Part(SLOW.format(value="c", column=3) + "return (b + c,)", {"c": 1, "b": 0}, {"y": ((), (0,))}),
    ]
    inputs = [torch.tensor([[float(i), *map(float, delay)]]) for i, delay in enumerate(delays)]
    with Pipeline.load(write(tmp_path, parts)) as pipe:
        results = list(pipe.map(inputs, in_flight))
    assert len(results) == len(inputs)
    for x, y in zip(inputs, results, strict=True):
        assert torch.equal(y, 2 * x + 1)


def test_a_call_within_a_stream(pipe: Pipeline) -> None:
    for x, y in zip(batches(5), pipe.map(batches(5), in_flight=3), strict=True):
        assert torch.equal(pipe(y), (y + 1) * 2)
        assert torch.equal(y, (x + 1) * 2)


def test_calls_from_many_threads(pipe: Pipeline) -> None:
    wrong: list[float] = []

    def call(value: float) -> None:
        x = torch.full((1, 4), value)
        wrong.extend(value for y in pipe.map([x] * 30) if not torch.equal(y, (x + 1) * 2))

    threads = [threading.Thread(target=call, args=(float(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Errors


FRAGILE = [
    Part("return x, x", {"x": None}, {"h": ((1,), ()), "skip": ((2,), ())}),
    Part("if h[0, 0] == 3: raise KeyError('three')\nreturn (h,)", {"h": 0}, {"m": ((2,), ())}),
    Part("return (skip + m,)", {"m": 1, "skip": 0}, {"y": ((), (0,))}),
]


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline.load(write(tmp_path, FRAGILE)) as pipe:
        yield pipe


def test_an_exception_in_a_stage_names_it_and_leaves_the_pipeline_usable(fragile: Pipeline) -> None:
    for _ in range(3):
        with pytest.raises(StageError, match=r"stage 1 \(cpu\) raised KeyError: 'three'") as caught:
            fragile(torch.full((1, 4), 3.0))
        assert caught.value.stage == 1
        assert isinstance(caught.value.__cause__, KeyError)
        assert torch.equal(fragile(X), 2 * X)


def test_a_stream_raises_at_the_turn_of_the_batch(fragile: Pipeline) -> None:
    results = fragile.map(batches(9), in_flight=9)
    assert [float(next(results)[0, 0]) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(StageError, match="KeyError"):
        next(results)
    assert list(results) == []
    assert torch.equal(fragile(X), 2 * X)


def test_other_batches_of_submit_are_not_touched(fragile: Pipeline) -> None:
    futures = [fragile.submit(x) for x in batches(6)]
    assert [f.exception() is None for f in futures] == [True, True, True, False, True, True]
    assert float(futures[5].result()[0, 0]) == 10


@pytest.mark.parametrize(("body", "got"), [("return x", "Tensor"), ("return x, x", "2"), ("return None", "NoneType")])
def test_a_stage_that_returns_something_else_is_named(tmp_path: Path, body: str, got: str) -> None:
    path = write(tmp_path, [Part(body, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path) as pipe, pytest.raises(StageError, match=f"stage_0.py: .* 1 tensors, not {got}"):
        pipe(X)


def test_a_stage_that_exits_does_not_hang_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path, [Part("raise SystemExit(3)", {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path) as pipe, pytest.raises(StageError, match="SystemExit: 3"):
        pipe(X)


TEXTLESS = """\
class TextlessError(Exception):
    def __str__(self):
        return self.text
raise TextlessError"""


@pytest.mark.parametrize("processes", [False, True])
def test_an_exception_whose_text_raises_does_not_hang_the_caller(tmp_path: Path, processes: bool) -> None:
    message = r"stage 0 \(cpu\) raised TextlessError: it has no text, as AttributeError is raised for it"
    path = write(tmp_path, [Part(TEXTLESS, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path, processes=processes, timeout=20) as pipe, pytest.raises(StageError, match=message):
        pipe.submit(X).result(timeout=PATIENCE)


def test_a_wrong_batch_is_raised_at_its_turn(pipe: Pipeline) -> None:
    results = pipe.map([X, X, X.double(), X])
    assert torch.equal(next(results), next(results))
    with pytest.raises(InputError, match=r"`x`: expected float32\[batch, 4\], got float64\[2, 4\]"):
        next(results)
    assert torch.equal(pipe(X), (X + 1) * 2)


def test_batches_that_raise(pipe: Pipeline) -> None:
    def source() -> Iterator[torch.Tensor]:
        yield X
        raise OSError("disk gone")

    results = pipe.map(source())
    assert torch.equal(next(results), (X + 1) * 2)
    with pytest.raises(OSError, match="disk gone"):
        next(results)
    assert torch.equal(pipe(X), (X + 1) * 2)


def slow_chain(folder: Path) -> Path:
    """y = (x + 1) * 2, in stages that are slower than a caller who fills tensors."""
    first = Part("time.sleep(0.01)\nreturn (x + 1,)", {"x": None}, {"h": ((1,), ())})
    return write(folder, [first, Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))})])


@pytest.mark.parametrize("processes", [False, True])
def test_a_buffer_that_is_filled_anew_while_its_batch_is_in_flight(tmp_path: Path, processes: bool) -> None:
    buffer, filled = torch.zeros(2, 4), X.clone()
    sources = (buffer.fill_(v) for v in range(20)), (buffer.fill_(v)[:1] for v in range(20))
    with Pipeline.load(slow_chain(tmp_path), processes=processes) as pipe:
        for source in sources:
            with pytest.raises(InputError, match="argument `x` was changed in place while its batch was in flight"):
                list(pipe.map(source))
        for value in range(3):
            assert torch.equal(pipe(filled.fill_(value)), (filled + 1) * 2)
        with torch.inference_mode():
            made = torch.ones(2, 4)
        assert torch.equal(pipe(made), torch.full((2, 4), 4.0))


@pytest.mark.parametrize("processes", [False, True])
def test_slices_of_a_buffer_are_filled_while_others_are_in_flight(tmp_path: Path, processes: bool) -> None:
    ring = torch.zeros(4, 2, 4).unbind()
    with Pipeline.load(slow_chain(tmp_path), processes=processes) as pipe:
        results = pipe.map((ring[value % 4].fill_(value) for value in range(10)), in_flight=3)
        for value, result in enumerate(results):
            assert torch.equal(result, torch.full((2, 4), (value + 1) * 2.0))


def test_a_result_class_that_raises(tmp_path: Path) -> None:
    returns = {"fields": [["a", {"slot": 0}]], "class": f"{__name__}:Point", "by": "keyword"}
    with Pipeline.load(chain(tmp_path, returns=returns)) as pipe:
        for _ in range(2):
            with pytest.raises(TypeError, match="unexpected keyword argument 'a'"):
                pipe(X)


# State


COUNTING = Part(
    "self.count.add_(1)\nreturn x + self.count, self.count",
    {"x": None},
    {"h": ((1,), ()), "count": ((), (1,))},
    weights={"count": torch.zeros(4)},
    state=("count",),
)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Pipeline]:
    parts = [COUNTING, Part("return (h,)", {"h": 0}, {"y": ((), (0,))})]
    returns = {"tuple": [{"slot": 0}, {"slot": 1}]}
    with Pipeline.load(write(tmp_path, parts, outputs=[tensor("y"), tensor("count", 4)], returns=returns)) as pipe:
        yield pipe


def test_state_stays_and_can_be_reset(counting: Pipeline) -> None:
    x = torch.zeros(1, 4)
    for _ in range(2):
        assert [float(y[0, 0]) for y, _ in counting.map([x] * 5)] == [1, 2, 3, 4, 5]
        counting.reset()


def test_reset_waits_for_batches_in_flight(counting: Pipeline) -> None:
    futures = [counting.submit(X) for _ in range(20)]
    counting.reset()
    assert all(f.done() for f in futures)
    assert float(counting(X)[1][0]) == 1


def test_state_that_leaves_a_stage_does_not_change_afterwards(counting: Pipeline) -> None:
    assert [float(count[0]) for _, count in list(counting.map([X] * 5))] == [1, 2, 3, 4, 5]


def test_a_stream_that_is_left_early_is_finished(counting: Pipeline) -> None:
    results = counting.map([X] * 100, in_flight=4)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert float(counting(X)[1][0]) == 5
