"""Shapes that come again are recorded, in bounds; a fake takes the place of what records."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from weakref import ReferenceType, ref

import pytest
import torch

from runtime.manifest.manifest import Generation, Manifest
from runtime.stage import recurring_shapes
from runtime.stage.cuda_graphs import NotYet
from runtime.stage.helper_kernels import HelperKernels
from runtime.stage.loader import load_stages
from runtime.stage.recurring_shapes import OF_TEXTS, RECORDED, RECURS, UNUSED, WINDOW, NotCompilable, RecurringShapes
from runtime.stage.speed import Speed
from runtime.stage.stage import ShapeKey, shape_key
from tests.support.artifacts.by_hand import chain
from tests.support.artifacts.stand_in_graphs import StandInDevice, stand_in_graphs


class Recorder:
    """Records at the first call of a shape, unless it `fails`."""

    def __init__(self) -> None:
        self.keys: list[ShapeKey] = []
        self.fails = False
        self.record: Callable[..., object] = lambda *tensors, **sizes: None

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        key = shape_key(tensors, sizes)
        if key not in self.keys:
            if self.fails:
                raise RuntimeError("it cannot be recorded")
            self.record(*tensors, **sizes)
            self.keys.append(key)
        return (torch.ones(1),)

    def is_prepared(self, key: ShapeKey) -> bool:
        return key in self.keys

    def forget(self, key: ShapeKey) -> None:
        self.keys.remove(key)


def as_it_is(*tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(1),)


def calls(stage: RecurringShapes, rows: int, count: int) -> list[bool]:
    """Whether each of so many calls ran what was recorded."""
    return [called(stage, rows) for _ in range(count)]


def called(stage: RecurringShapes, rows: int) -> bool:
    x = torch.zeros(rows)
    stage.is_prepared(shape_key([x], {"rows": rows}))  # which each call is preceded by
    return bool(stage(x, rows=rows)[0])


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def stage(recorder: Recorder) -> RecurringShapes:
    return RecurringShapes(as_it_is, recorder, lambda: True)


def test_the_third_call_of_a_shape_is_recorded(stage: RecurringShapes) -> None:
    key = shape_key([torch.zeros(5)], {"rows": 5})
    assert calls(stage, 5, RECURS - 1) == [False] * (RECURS - 1)
    assert not stage.is_prepared(key)  # the lock is held alone for what comes
    assert calls(stage, 5, 2) == [True, True]
    assert stage.is_prepared(key)
    assert calls(stage, 6, 1) == [False]


def test_only_so_many_shapes_until_one_is_out_of_use(stage: RecurringShapes, recorder: Recorder) -> None:
    for rows in range(RECORDED + 2):
        calls(stage, rows, RECURS)
    assert len(recorder.keys) == RECORDED
    calls(stage, 1, UNUSED)
    assert calls(stage, RECORDED, RECURS)[-1]
    assert len(recorder.keys) == RECORDED
    assert shape_key([torch.zeros(0)], {"rows": 0}) not in recorder.keys  # it was in use the longest ago


def test_sizes_that_change_from_call_to_call_are_not_recorded(stage: RecurringShapes, recorder: Recorder) -> None:
    for _ in range(5):
        for rows in range(WINDOW):
            calls(stage, rows, 1)
    assert not recorder.keys
    calls(stage, 3, RECURS)
    assert len(recorder.keys) == 1


def test_shapes_of_texts_are_recorded_sooner_and_longer_after(recorder: Recorder) -> None:
    stage = RecurringShapes(as_it_is, recorder, lambda: True, rule=OF_TEXTS)
    for rows in range(OF_TEXTS.most + 1):
        calls(stage, rows, 1)
    assert [calls(stage, rows, 1) for rows in range(OF_TEXTS.most + 1)] == [[True]] * OF_TEXTS.most + [[False]]


@pytest.mark.parametrize("page", [0, 4])
def test_a_decoders_stage_without_pools_records_as_soon_as_the_others(tmp_path: Path, page: int) -> None:
    manifest = replace(Manifest.read(chain(tmp_path)), generation=Generation(page=page))
    with stand_in_graphs(StandInDevice()):
        speed = Speed(cuda_graphs=None).of_artifact(tmp_path, manifest)
        first, _ = load_stages(tmp_path, manifest, [torch.device("cpu")] * 2, strict=False, speed=speed)
        x, program = torch.ones(2, 4), first.programs[0]
        for _ in range(OF_TEXTS.recurs):
            first((x,), {"batch": 2})
        assert (program.graph_of(program.key_of((x,), {"batch": 2})) is not None) == bool(page)


def test_batches_are_recorded_while_callers_of_their_process_wait_and_texts_always(tmp_path: Path) -> None:
    manifest, speed = Manifest.read(chain(tmp_path)), Speed(cuda_graphs=None)
    assert speed.of_artifact(tmp_path, manifest, beside_callers=True).beside_callers
    assert not speed.of_artifact(tmp_path, manifest).beside_callers  # of a process without callers
    texts = replace(manifest, generation=Generation(page=4))
    assert not speed.of_artifact(tmp_path, texts, beside_callers=True).beside_callers


def test_nothing_is_recorded_without_memory_or_kernels(recorder: Recorder) -> None:
    ready: list[bool] = []
    stage = RecurringShapes(as_it_is, recorder, lambda: bool(ready))
    assert not any(calls(stage, 5, 9))
    assert stage.is_prepared(shape_key([torch.zeros(5)], {"rows": 5}))
    ready.append(True)  # after it was asked: the lock is not held alone for this call
    assert not stage(torch.zeros(5), rows=5)[0]
    assert calls(stage, 5, 1) == [True]


def test_a_graph_that_would_be_without_kernels_is_recorded_later(recorder: Recorder) -> None:
    """Its buffers may lie otherwise than a batch, and ask for other kernels."""

    class Waiting(Recorder):
        left = 2

        def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
            if self.left:
                self.left -= 1
                raise NotYet
            return super().__call__(*tensors, **sizes)

    assert calls(RecurringShapes(as_it_is, Waiting(), lambda: True), 5, RECURS + 3)[RECURS - 1 :] == [
        False,
        False,
        True,
        True,
    ]


class Kernels(ModuleType):
    """A file beside stages whose kernels are compiled once it is told so, or waited for."""

    compiled, waited = False, 0

    def kernels_are_compiled(self) -> bool:
        return self.compiled

    def finish_kernels(self) -> None:
        self.waited, self.compiled = self.waited + 1, True


@pytest.mark.parametrize("asked", [True, None])
def test_a_batch_waits_for_kernels_only_where_its_caller_asked_for_graphs(tmp_path: Path, asked: bool | None) -> None:
    manifest, kernels = Manifest.read(chain(tmp_path)), Kernels("kernels")
    with stand_in_graphs(StandInDevice()):
        speed = Speed(cuda_graphs=asked).of_artifact(tmp_path, manifest)
        first, _ = load_stages(tmp_path, manifest, [torch.device("cpu")] * 2, strict=False)
        first = speed.apply(replace(first, kernels=HelperKernels([ModuleType("plain"), kernels])))
        x, program = torch.ones(2, 4), first.programs[0]

        def is_recorded() -> bool:
            first((x,), {"batch": 2})
            return program.graph_of(program.key_of((x,), {"batch": 2})) is not None

        program = first.programs[0]
        assert [is_recorded() for _ in range(5)] == [bool(asked)] * 5
        assert bool(kernels.waited) == bool(asked)
        kernels.compiled = True
        assert is_recorded()
        assert bool(kernels.waited) == bool(asked)


def test_outputs_that_take_long_to_copy_are_not_those_of_a_graph(
    monkeypatch: pytest.MonkeyPatch, stage: RecurringShapes, recorder: Recorder
) -> None:
    monkeypatch.setattr(recurring_shapes, "COPIED_SLOWLY", 4)
    assert not any(calls(stage, 5, WINDOW))
    assert stage.is_prepared(shape_key([torch.zeros(5)], {"rows": 5}))
    monkeypatch.setattr(recurring_shapes, "COPIED_SLOWLY", 5)
    assert calls(stage, 6, RECURS)[-1]


@pytest.mark.parametrize("has_state", [False, True])
def test_graphs_give_way_to_a_batch_that_needs_their_memory(recorder: Recorder, has_state: bool) -> None:
    def needs_much(x: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        if len(x) == 64 and recorder.keys:
            raise torch.OutOfMemoryError
        return (torch.zeros(1),)

    stage = RecurringShapes(needs_much, recorder, lambda: True, has_state=has_state)
    assert calls(stage, 5, RECURS)[-1]
    with pytest.raises(torch.OutOfMemoryError) if has_state else nullcontext():
        assert calls(stage, 64, 2) == [False, False]
    assert calls(stage, 5, RECURS + 1) == [has_state] * (RECURS + 1)  # once is enough
    recorder.keys.append(shape_key([torch.zeros(64)], {"rows": 64}))
    with pytest.raises(torch.OutOfMemoryError):
        calls(stage, 64, 1)  # others have the memory


def test_graphs_give_way_to_a_batch_that_could_not_be_recorded_beside_them(recorder: Recorder) -> None:
    def needs_much(x: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        if recorder.fails and recorder.keys:
            raise torch.OutOfMemoryError
        return (torch.zeros(1),)

    stage = RecurringShapes(needs_much, recorder, lambda: True)
    calls(stage, 64, RECURS - 1)
    assert calls(stage, 5, RECURS)[-1]
    recorder.fails = True
    assert calls(stage, 64, 2) == [False, False]
    assert not recorder.keys


def test_what_failed_to_be_recorded_is_let_go_before_the_batch_runs(recorder: Recorder) -> None:
    lost = list[ReferenceType[torch.Tensor]]()

    def failing(*tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        made = torch.zeros(8)
        lost.append(ref(made))
        raise torch.OutOfMemoryError

    def needs_memory(*tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        return (torch.tensor(float(any(tensor() is not None for tensor in lost))),)

    recorder.record = failing
    stage = RecurringShapes(needs_memory, recorder, lambda: True)
    assert calls(stage, 5, RECURS) == [False] * RECURS
    assert len(lost) == 1


def test_a_module_that_draws_random_numbers_draws_no_more_of_them_to_be_recorded(recorder: Recorder) -> None:
    def noisy(x: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        return (torch.rand(1) - 1 if len(x) == 5 else torch.zeros(1),)

    states = partial(recurring_shapes.random_states, torch.device("cpu"))
    stage = RecurringShapes(noisy, recorder, lambda: True, random_states=states)
    torch.manual_seed(0)
    drawn = [stage(torch.zeros(5), rows=5)[0] for _ in range(2 * RECURS)]
    torch.manual_seed(0)
    assert drawn == [torch.rand(1) - 1 for _ in range(2 * RECURS)]
    assert calls(stage, 6, RECURS)[-1]


def test_a_module_that_cannot_be_recorded_runs_as_it_is(stage: RecurringShapes, recorder: Recorder) -> None:
    calls(stage, 4, RECURS)
    recorder.fails = True
    assert not any(calls(stage, 5, 9))
    assert calls(stage, 4, 1) == [True]


def test_a_module_that_cannot_be_compiled_says_so() -> None:
    class Compiling(Recorder):
        def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
            raise NotCompilable("it cannot be compiled; run it without compile")

    stage = RecurringShapes(as_it_is, Compiling(), lambda: True)
    assert not any(calls(stage, 4, RECURS - 1))
    with pytest.raises(NotCompilable, match="run it without compile"):
        calls(stage, 4, 1)


def test_few_counts_are_kept(stage: RecurringShapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurring_shapes, "WATCHED", 3)
    for rows in (1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4):
        calls(stage, rows, 1)
    assert len(stage._seen) == 3
