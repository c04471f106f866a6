"""A process that runs stages for the process that started it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import torch

from runtime.device.settings import apply_settings
from runtime.distributed import parent
from runtime.distributed.exit import kill_group
from runtime.distributed.links.error_codec import encode
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.engine import Engine
from runtime.manifest.manifest import Manifest
from runtime.processes.message_socket import MessageSocket
from runtime.processes.orders import (
    Alive,
    BeginSession,
    Fault,
    Followed,
    LoadStages,
    Order,
    StopSession,
    receive_order,
    send_order,
)
from runtime.processes.session import Places, session_ports
from runtime.stage.loader import load_stages
from runtime.stage.rehearsal import rehearse
from runtime.stage.stage import LoadedStage


def main(descriptor: int) -> None:
    """Follow orders until the connection to the owner ends: then this process ends, too, whatever it does."""
    connection = MessageSocket.of_descriptor(descriptor)
    orders: SimpleQueue[tuple[Order, list[int]]] = SimpleQueue()
    Thread(target=_listen, args=(connection, orders), daemon=True).start()
    first, _ = orders.get()
    assert isinstance(first, LoadStages)
    Thread(target=_beat, args=(connection, first.beat), daemon=True).start()
    member = _Member(connection, first)
    try:
        member.load()
    except Exception as e:
        send_order(connection, Fault(encode(e)))
        return
    member.rehearse()
    while True:
        member.follow(*orders.get())


def _listen(connection: MessageSocket, orders: SimpleQueue[tuple[Order, list[int]]]) -> None:
    try:
        while True:
            orders.put(receive_order(connection))
    except ConnectionError:
        kill_group(os.getpid())


def _beat(connection: MessageSocket, seconds: float) -> None:
    """Give signs of life.  Ends this process if its owner has ended, whose forks may hold the connection open."""
    while not parent.is_gone():
        with suppress(ConnectionError):
            send_order(connection, Alive())
        time.sleep(seconds)
    kill_group(os.getpid())


def stages_of(job: LoadStages, manifest: Manifest) -> tuple[LoadedStage, ...]:
    """The stages of the process with the job's number, loaded from files that were checked.

    Raises ManifestError or DeviceError.
    """
    own = [stage for stage, process in enumerate(job.processes) if process == job.number]
    speed = job.speed.of_artifact(job.folder, manifest)
    return load_stages(job.folder, manifest, job.devices, strict=False, speed=speed, indices=own, checked=True)


class _Member:
    """The stages of this process, and the engine that runs them now."""

    def __init__(self, connection: MessageSocket, job: LoadStages) -> None:
        self._connection = connection
        self._job = job
        self._stages: tuple[LoadedStage, ...] = ()
        self._engine: Engine | None = None
        self._alarm: Channel[None] = Channel()

    def load(self) -> None:
        """Raises ManifestError or DeviceError."""
        job = self._job
        torch.set_num_threads(job.threads)
        apply_settings(job.settings)
        torch.manual_seed(job.seed)
        manifest = Manifest.read(job.folder).with_room_for(job.tokens)
        self._places = Places(manifest, job.processes, job.devices)
        self._stages = stages_of(job, manifest)
        send_order(self._connection, Followed())

    def rehearse(self) -> None:
        """Run the stages once, while the owner already goes on: a batch may come meanwhile, and waits."""
        rehearse(self._stages, self._places.manifest, self._job.speed)

    def follow(self, order: Order, descriptors: list[int]) -> None:
        match order:
            case BeginSession(routes):
                ends = {r: MessageSocket.of_descriptor(d) for r, d in zip(routes, descriptors, strict=True)}
                self._begin(ends)
            case StopSession():
                self._stop()
        send_order(self._connection, Followed())

    def _begin(self, ends: dict[int, MessageSocket]) -> None:
        self._alarm = Channel()
        ports = session_ports(self._places, self._job.number, ends, self._alarm)
        self._engine = Engine(self._places.manifest, self._stages, self._job.timeout, ports)
        Thread(target=self._watch, args=(self._alarm,), daemon=True).start()

    def _stop(self) -> None:
        """Drop the batches in flight.  Ends this process if a stage does not come to an end."""
        if self._engine is None:
            return
        self._engine.close()
        if self._engine.is_running:
            kill_group(os.getpid())
        self._engine = None
        for stage in self._stages:
            stage.reset()

    def _watch(self, alarm: Channel[None]) -> None:
        """Report the fault that the engine was closed for, if there is one."""
        alarm.wait_closed()
        try:
            alarm.require_open()
        except ChannelClosed as e:
            if isinstance(e.__cause__, Exception):
                with suppress(ConnectionError):
                    send_order(self._connection, Fault(encode(e.__cause__)))
