"""What is said where a pipeline cannot be loaded, run or connected, and no other test asks for it."""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import distributed, nn
from torch._C._distributed_c10d import HashStore

from runtime import InputError, ManifestError, Pipeline
from runtime.call.adapter_rows import AdapterNames
from runtime.call.trees.tree import parse
from runtime.device.ipc import SharedDeviceMemory
from runtime.device.placement import device_of_process
from runtime.distributed import rendezvous
from runtime.distributed.job_address import JobAddress
from runtime.distributed.links import host_links
from runtime.distributed.links.link_threads import LinkThread, RemoteStage
from runtime.distributed.links.transport import Transport
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.watchdog import Watchdog
from runtime.errors import DeviceError, DistributedError, StageError
from runtime.generation.__main__ import _prompt
from runtime.generation.continuation import Continuation
from runtime.generation.generate import TextGeneration
from runtime.generation.generator import Generator
from runtime.generation.options import TextOptions
from runtime.generation.prompts.prompt_reader import Prompt
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation, Manifest, Operator
from runtime.measure import shares
from runtime.processes.choice import processes_of
from runtime.processes.message_socket import MessageSocket
from runtime.stage.stage import StageModule
from tests.support.artifacts.by_hand import Part, write

NONE = cast(Any, None)
ME = rendezvous.Peer(0, "here", 1, "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "own", [Part("return (x,)", {"x": None}, {"y": ((), (0,))})])


def test_nodes_of_trees_that_there_are_not() -> None:
    with pytest.raises(ManifestError, match=r"unknown node \{'frog': 1\}"):
        parse({"frog": 1}, (), 1)
    with pytest.raises(ManifestError, match=r"torch\.relu is no dtype, layout or memory format"):
        parse({"torch": "relu"}, (), 1)


def test_what_is_no_device(folder: Path) -> None:
    with pytest.raises(DeviceError, match="device is 3, which is no device's name; this host has cpu"):
        device_of_process("cpu", cast(Any, 3), 0)
    manifest = replace(Manifest.read(folder), operators=(Operator("mine::op", "", "", "", ()),))
    with pytest.raises(DeviceError, match="the stages cannot run in processes of their own: the operator mine::op"):
        processes_of(manifest, [torch.device("cpu")], True)


def test_a_call_of_an_accelerator_that_fails() -> None:
    memory = object.__new__(SharedDeviceMemory)
    memory._prefix, memory._library = "cuda", cast(Any, SimpleNamespace(cudaFree=lambda _: 2, cudaGetLastError=int))
    with pytest.raises(RuntimeError, match="cudaFree failed with status 2"):
        memory.free(1)


# ---- processes that do not find each other


def test_a_process_of_this_host_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an address has at most 107 bytes
    store = SimpleNamespace(get=lambda _: str(tmp_path / "none").encode())
    job = cast(Any, SimpleNamespace(rank=1, peers=[ME], store=store))
    with pytest.raises(DistributedError, match=r"rank 1 cannot reach rank 0 \(process 1 on here\) on its own host: "):
        host_links._call(job, 0, 0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("links")
        server.listen()
        with pytest.raises(DistributedError, match="another process of this host did not connect within 3 s"):
            host_links._accept(server, time.monotonic(), 3.0)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((0, 2, None), "address is None; it must be that of rank 0, such as"),
        ((2, 2, "a:1"), "rank is 2; it must be a number from 0 to world - 1"),
        ((None, 2, "a:1"), "rank is None; it must be a number from 0"),
        ((0, 0, "a:1"), "world is 0; it must be a number of processes"),
        ((0, 1, "a:x"), "'a:x' is no address of a host, such as"),
    ],
)
def test_a_place_in_a_job_that_cannot_be(place: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        JobAddress.find(*place)
    with pytest.raises(DistributedError, match=r"of a job: torchrun --nproc-per-node N script\.py"):
        JobAddress.find()


def test_a_rank_that_does_not_arrive_is_named_without_torchrun_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = JobAddress.find(0, 2, f"127.0.0.1:{port}")
    with pytest.raises(DistributedError, match=r"rank 1 \(stage 1\) did not arrive within 0\.5 s"):
        rendezvous.rendezvous(place, "cpu", ["rank 0 (stage 0)", "rank 1 (stage 1)"], 0.5)


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("refused")

    monkeypatch.setattr(rendezvous, "TCPStore", fail)
    with pytest.raises(
        DistributedError, match=r"rank 3 cannot reach the store of the job at 10\.0\.0\.1:29400: refused"
    ):
        rendezvous._store(JobAddress.find(3, 4, "10.0.0.1"), 1.0)
    monkeypatch.setattr(distributed, "ProcessGroupGloo", fail)
    with pytest.raises(DistributedError, match="the processes cannot reach each other: refused"):
        Transport(HashStore(), 0, 2, 1.0)
    with pytest.raises(DistributedError, match=r"rank 0 did not arrive within 2 s, or left at once: refused"):
        rendezvous._join(replace(ME, rank=1), "here", cast(Any, SimpleNamespace(get=fail)), time.monotonic(), 2.0)


def test_a_connection_that_is_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(ConnectionError, match="the other process closed the connection"):
        MessageSocket(ours).receive()
    ours.close()


def test_a_link_that_breaks_without_a_cause_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(LinkThread):
        def carry(self) -> None:
            raise ConnectionError("reset")

    monkeypatch.setattr("runtime.distributed.links.link_threads.DIAGNOSIS_TIME", 0)
    alarm = Channel[None]()
    Broken(alarm, RemoteStage(1, "cpu", "rank 1")).run()
    with pytest.raises(ChannelClosed) as closed:
        alarm.require_open()
    cause = closed.value.__cause__
    assert isinstance(cause, StageError)
    assert str(cause) == "stage 1 (cpu) raised ConnectionError: the connection to rank 1 broke: reset"


def test_a_share_of_the_cpu_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    monkeypatch.setattr(shares, "_PATIENCE", 0)
    with receiver, sender, pytest.raises(DistributedError, match="a share of the CPU said nothing for 0 s"):
        shares._answers([receiver], NONE)


# ---- stages


def test_what_a_stage_file_is_without(folder: Path) -> None:
    manifest = Manifest.read(folder)
    module = StageModule(manifest.programs[0].stages[0], nn.Identity(), lambda x: x)
    with pytest.raises(TypeError, match=r"stage_0\.py: forward should return 1 tensors, not Tensor"):
        module([torch.zeros(1)], {})
    file = folder / "stage_0.py"
    file.write_text(file.read_text() + "# edited\n")
    with pytest.raises(ManifestError, match=r"stage_0\.py differs from the manifest: it was edited; load it without"):
        Pipeline.load(folder, strict=True)
    file.unlink()
    with pytest.raises(ManifestError, match=r"stage_0\.py is missing; compile the model again"):
        Pipeline.load(folder)


def test_a_stage_without_a_buffer_that_a_call_changes(folder: Path) -> None:
    entry = replace(Manifest.read(folder).programs[0].stages[0], state=("mean",))
    with pytest.raises(ManifestError, match=r"stage_0\.py lacks a buffer that the manifest lists as state: "):
        _ = StageModule(entry, nn.Identity(), nn.Identity()).state


def test_a_pipeline_of_threads_is_not_started_again(folder: Path) -> None:
    with Pipeline.load(folder) as pipe:
        with pytest.raises(RuntimeError, match="this pipeline has no processes of its own; load it again"):
            pipe.restart()
        with pipe.trace(), pytest.raises(RuntimeError, match="this pipeline is traced already; end that trace"):
            pipe.trace().__enter__()
    with pytest.raises(ValueError, match="timeout is 0; a stage needs some time for a batch"):
        Watchdog((), (), 0, Event())


# ---- texts


def test_prompts_that_cannot_be_continued() -> None:
    options = argparse.Namespace(prompt="1 two", chat=False, ids=True)
    with pytest.raises(InputError, match="'1 two' is no list of token ids, such as '1 15 27'"):
        _prompt(options)
    texts = object.__new__(TextGeneration)
    texts._generation, texts._adapters = Generation(page=4, max_length=64, vocabulary=9), AdapterNames()
    with pytest.raises(InputError, match="the prompt is ids, which the text 'end' cannot end; stop it by ids"):
        texts._start(Prompt((1, 2)), {"stop": "end", "max_new_tokens": 3})
    with pytest.raises(TimeoutError, match="the text is not done after 0 s"):
        Continuation(0, TextOptions(4), NONE).result(timeout=0)


def idle(generation: Generation) -> Generator:
    return Generator(generation, ["input_ids", "table", "window_table"], GeneratingStages(NONE, 1))


def test_a_prompt_with_media_has_to_fit_the_window() -> None:
    made = idle(Generation(page=4, pages=40, window=8, window_pages=4, max_length=64, vocabulary=9))
    with pytest.raises(InputError) as said:
        made.start(range(20), TextOptions(4), media=cast(Any, object()))
    assert "a prompt of 20 tokens with media is computed at once, and the layers that slide have room for 12" in str(
        said.value
    )


def test_texts_that_cannot_go_on_are_a_fault_of_ours() -> None:
    made = idle(Generation(page=4, pages=40, max_length=64, vocabulary=9))
    made._scheduler = cast(Any, SimpleNamespace(next_batch=lambda: None, is_busy=False))
    made._texts = cast(Any, {1: object.__new__(TextInProgress)})
    made._events.put(lambda: None)
    with pytest.raises(RuntimeError, match="no text can go on; this is a fault of stagecut"):
        made._act()
