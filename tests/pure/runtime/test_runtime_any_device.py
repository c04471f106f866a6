"""Accelerators of a kind that the table does not know: a stand-in of two, of which torch tells no more than it must."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from runtime.device import ipc, kinds, placement
from runtime.device.copies import DeviceCopies
from runtime.device.kinds import DeviceKind, kind_of, model_name, total_memory
from runtime.device.packs import Pack
from runtime.device.streams import current_streams, made_by_now, read_in
from runtime.engine import worker
from runtime.engine.launcher import _received
from runtime.engine.message import Failure, Values
from runtime.engine.routes import Route, RouteTensors
from runtime.engine.worker import Worker
from runtime.errors import DeviceError, StageError
from runtime.generation.stages import GeneratingStages, StepSubmission
from runtime.manifest.manifest import Manifest
from runtime.processes.choice import processes_of
from runtime.processes.start import can_be_copied
from runtime.stage.cuda_graphs import GraphedStage, GraphMemory, NotYet
from runtime.stage.loader import load_stages
from runtime.stage.recurring_shapes import has_room
from runtime.stage.speed import Speed
from runtime.stage.stage import LoadedStage, shape_key
from tests.support.artifacts.by_hand import chain

STAND_IN = torch.device("xpu:1")


@dataclass
class StandInStream:
    """What a stream was asked for, in order."""

    device: torch.device
    asked: list[str] = field(default_factory=list)

    def record_event(self) -> str:
        self.asked.append("record")
        return f"event of {self.device}"

    def wait_event(self, event: object) -> None:
        self.asked.append(f"wait for {event}")

    def __enter__(self) -> None:
        self.asked.append("enter")

    def __exit__(self, *_: object) -> None:
        self.asked.append("leave")


class StandInGraph:
    """Of a program that adds one: what a graph does when it is replayed."""

    replays = 0

    def replay(self) -> None:
        StandInGraph.replays += 1


@pytest.fixture(autouse=True)
def accelerator(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch, as it is where the two are: it has no name for what they do but those that all kinds share."""
    properties = SimpleNamespace(name="Stand-in 1", total_memory=1 << 30)
    module = SimpleNamespace(
        get_device_properties=lambda device: properties,
        is_initialized=lambda: False,
        mem_get_info=lambda device: (50 << 20, 1 << 30),
        graph_pool_handle=lambda: "pool",
        Stream=StandInStream,
        StandInGraph=StandInGraph,
        graph=lambda graph, **_: StandInStream(STAND_IN),
    )
    streams = {torch.device("xpu", i): StandInStream(torch.device("xpu", i)) for i in range(2)}
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_stream", streams.__getitem__)
    monkeypatch.setattr(torch, "get_device_module", lambda device=None: module)
    return module


def test_its_devices_are_found_and_take_a_process_each(tmp_path: Path) -> None:
    here = [torch.device("cpu"), torch.device("xpu:0"), torch.device("xpu:1")]
    assert placement.available() == here
    assert placement.place_stages(["xpu:0", "xpu:1"], None) == (*here[1:],)
    assert placement.device_of_process("xpu:0", None, 3) == here[2]
    with pytest.raises(DeviceError, match=r"device xpu:2 is not here; this host has cpu, xpu:0, xpu:1"):
        placement.place_stages(["cpu"], ["xpu:2"])
    manifest = Manifest.read(chain(tmp_path))
    assert processes_of(manifest, here[1:], None) == (1, 2)
    assert (model_name(STAND_IN), total_memory(STAND_IN)) == ("Stand-in 1", 1 << 30)


def test_what_torch_does_not_tell_has_defaults(tmp_path: Path, accelerator: SimpleNamespace) -> None:
    kind = kind_of(STAND_IN)
    assert (kind.group, kind.graph, kind.ipc) == ("", "", None)  # by the host, kernel by kernel, by the host
    assert not ipc.is_shareable(STAND_IN, torch.device("xpu:0"))
    assert not has_room(STAND_IN)
    manifest = Manifest.read(chain(tmp_path))
    (stage,) = load_stages(tmp_path, manifest, [torch.device("cpu")] * 2, strict=False, indices=[0])
    stage = replace(stage, device=STAND_IN)
    assert Speed(cuda_graphs=None).apply(stage).programs[0].is_prepared is None
    with pytest.raises(DeviceError, match="CUDA graphs need CUDA devices, and stage 0 is on xpu:1"):
        Speed(cuda_graphs=True).apply(stage)
    accelerator.is_initialized = lambda: True
    assert not can_be_copied()


def test_its_streams_wait_for_events() -> None:
    tensor = SimpleNamespace(device=STAND_IN, record_stream=lambda stream: stream.asked.append("keep"))
    stream = current_streams([STAND_IN, torch.device("cpu")])[0]
    assert isinstance(stream, StandInStream)
    ready = made_by_now([tensor])  # pyright: ignore[reportArgumentType]
    read_in(stream, [tensor], ready)  # pyright: ignore[reportArgumentType]
    assert stream.asked == ["record", "wait for event of xpu:1", "keep"]
    assert DeviceCopies(STAND_IN).bring([tensor], ready) == ((tensor,), ready)  # pyright: ignore[reportArgumentType]


def test_what_is_launched_waits_for_its_inputs() -> None:
    stage = LoadedStage.from_modules(0, torch.device("cpu"), ())
    stream = current_streams([STAND_IN])[0]
    assert isinstance(stream, StandInStream)
    stage = replace(stage, device=STAND_IN, stream=stream, copies=DeviceCopies(STAND_IN))
    made = SimpleNamespace(device=STAND_IN, is_cpu=False, record_stream=lambda stream: stream.asked.append("keep"))
    with stage.reading([made, torch.ones(1)], ["event"]):  # pyright: ignore[reportArgumentType]
        assert stream.asked == ["wait for event", "enter"]


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError])
def test_what_is_launched_keeps_its_inputs_until_the_device_has_read_them(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no allocator has to, of the host or of a device, which records an event and asks for it."""
    events = [Mock(query=Mock(return_value=False)) for _ in range(3)]
    monkeypatch.setattr(worker, "made_in", lambda stream: (events.pop(0),))
    stage = LoadedStage.from_modules(0, torch.device("cpu"), ())
    runs, graph, first = Worker(stage, (), ()), Mock(), events[0]
    given, pack = torch.ones(1), Pack({}, torch.ones(8), (), "")
    held = [weakref.ref(given), weakref.ref(pack.memory)]
    graph.launch.side_effect = error
    with pytest.raises(StageError) if error else nullcontext():
        runs.launch(graph, [given], (), pack)
    graph.launch.assert_called_once_with([given], pack)
    graph.reset_mock(side_effect=True)
    del given, pack
    gc.collect()  # of the error and its traceback
    runs.launch(graph, [], ())
    assert all(one() is not None for one in held)
    first.query.return_value = True
    runs.launch(graph, [], ())
    assert all(one() is None for one in held)


def test_a_graph_is_looked_up_once_between_two_messages() -> None:
    """Those have graphs recorded and forgotten."""
    stage, programs, sizes, key = LoadedStage.from_modules(0, torch.device("cpu"), ()), Mock(), (0, (2,)), ((), ())
    runs = Worker(replace(stage, programs=(programs,)), (), ())
    for graph in ("one", "another", None):
        runs._keys[sizes] = key
        programs.graph_of = Mock(return_value=graph)
        assert [runs.graph_of(sizes) for _ in range(3)] == [graph] * 3
        programs.graph_of.assert_called_once_with(key)
        runs._answered(Failure(StageError(0, "cpu", ValueError())))


def test_a_stage_waits_for_no_event_that_comes_before_another_one_it_waits_for() -> None:
    ways: dict[tuple[int | None, int | None], tuple[int, ...]] = {
        (None, 0): (0,), (None, 1): (1,), (0, 1): (0,), (None, 2): (2,), (0, 2): (1,), (1, 2): (0,), (0, 3): (0,),
        (None, 3): (1,), (2, None): (0,), (3, None): (1,),
    }  # fmt: skip
    routes = [Route(*ends, (RouteTensors(places, places),)) for ends, places in ways.items()]
    awaited = {end: received.awaited for end, received in _received((0, 1, 2, 3, None), routes, 0).items()}
    assert awaited == {0: (None,), 1: (0,), 2: (1,), 3: (0,), None: (2, 3)}


def test_copies_from_another_device_are_torchs_where_the_library_cannot_make_them(
    accelerator: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator.device = lambda device: nullcontext()
    calls, reaches = Mock(), partial(ipc.reaches.__wrapped__, torch.device("xpu:0"), STAND_IN)
    monkeypatch.setattr(ipc, "is_shareable", lambda source, target: True)
    monkeypatch.setattr(ipc, "shared_memory_of", lambda kind: calls)
    assert reaches()
    calls.reach.assert_called_once_with(0)
    for setting in ("expandable_segments:True", "max_split_size_mb:64, backend: cudaMallocAsync"):
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", setting)
        assert not reaches()  # memory that torch maps itself
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False,backend:native")
    assert reaches()
    calls.reach.side_effect = ipc.CallFailed("DeviceEnablePeerAccess", 711)  # there are too many
    assert not reaches()


def test_what_lies_on_another_device_is_kept_until_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    other = StandInStream(torch.device("xpu:0"))
    monkeypatch.setattr("runtime.device.copies.stream_on", {other.device: other}.__getitem__)
    stage = LoadedStage.from_modules(0, torch.device("cpu"), ())
    stream = current_streams([STAND_IN])[0]
    assert isinstance(stream, StandInStream)
    stage = replace(stage, device=STAND_IN, stream=stream, copies=DeviceCopies(STAND_IN))
    far = SimpleNamespace(device=other.device, is_cpu=False, record_stream=lambda stream: stream.asked.append("keep"))
    with stage.reading([far], ["event"]):  # pyright: ignore[reportArgumentType]
        assert (other.asked, stream.asked[-1]) == (["wait for event", "keep", "enter"], "enter")


def test_what_a_caller_gives_is_waited_for_by_a_launched_step() -> None:
    """An image on an accelerator may still be computed, or made of others, in the stream of the thread that asks."""
    image, engine, programs = SimpleNamespace(device=STAND_IN), Mock(), Mock()
    programs.bind_named.return_value = Values((image,))  # pyright: ignore[reportArgumentType]
    programs.program_of.return_value.named.return_value = {"token": torch.ones(1), "logprob": torch.ones(1)}
    StepSubmission(engine, programs)({"media_image": image}, ["another event"])  # pyright: ignore[reportArgumentType]
    (batch,) = engine.launch.call_args.args
    assert batch.ready == ("event of xpu:1", "another event")


@pytest.mark.parametrize(("processes", "at_once"), [(0, 2), (2, 2), (3, 3)])
def test_as_many_steps_are_under_way_as_there_are_devices_or_processes(processes: int, at_once: int) -> None:
    """Not one more for stages that share a device, or a process."""
    engine = SimpleNamespace(home=None, require_open=lambda: None)
    submit = StepSubmission(engine, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    devices = [STAND_IN, STAND_IN, torch.device("xpu:0"), torch.device("xpu:0")]
    assert GeneratingStages.on(devices, processes, submit, 0.8).at_once == at_once


def test_its_graphs_have_the_class_that_the_table_names(
    monkeypatch: pytest.MonkeyPatch, accelerator: SimpleNamespace
) -> None:
    monkeypatch.setitem(kinds.DEVICE_KINDS, "xpu", DeviceKind("xpu", graph="StandInGraph"))
    done: list[str] = []

    def run(x: torch.Tensor) -> tuple[torch.Tensor]:
        done.append("run")
        return (x + 1,)

    def finish() -> bool:
        done.append("finish")
        return True

    graphed = GraphedStage(run, (), GraphMemory.on(STAND_IN), has_kernels=finish)
    x = torch.ones(2)
    assert torch.equal(graphed(x)[0], x + 1)
    assert done == ["run", "finish"] * 2 + ["run"]  # with kernels that run once all are compiled
    assert (GraphMemory.on(STAND_IN).pool, StandInGraph.replays) == ("pool", 1)


def test_a_stage_is_not_recorded_while_kernels_are_compiled(
    monkeypatch: pytest.MonkeyPatch, accelerator: SimpleNamespace
) -> None:
    monkeypatch.setitem(kinds.DEVICE_KINDS, "xpu", DeviceKind("xpu", graph="StandInGraph"))
    count, ready = torch.zeros(1), [True, False]

    def run(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x + count.add_(1),)

    graphed = GraphedStage(run, [count], GraphMemory.on(STAND_IN), has_kernels=lambda: not ready or ready.pop(0))
    x = torch.ones(2)
    with pytest.raises(NotYet):
        graphed(x)
    assert count.item() == 0  # as no batch has run
    graphed(x)
    assert graphed.is_prepared(shape_key([x], {}))
