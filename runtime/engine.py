"""The stages of an artifact on threads of this process, and the channels between them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Lock, Thread, current_thread
from typing import Any

from runtime.channel import Channel, ChannelClosed
from runtime.collector import Collector, Finish, Ticket
from runtime.errors import PipelineClosed
from runtime.manifest import Manifest
from runtime.message import Message, Port, Reset, Values, Watch, send_all
from runtime.stage import LoadedStage
from runtime.tracks import Trace
from runtime.wiring import routes
from runtime.worker import Worker

GRACE = 5.0  # seconds that closing waits for the stages to finish what they run


class Engine:
    """One thread for each stage, and one that collects the outputs.

    Every message passes every stage, in the order in which they were sent: so the channels never
    need to say of which batch their tensors are.
    """

    def __init__(self, manifest: Manifest, stages: Sequence[LoadedStage]) -> None:
        """Start the threads.  Raises ManifestError where the stages do not fit together."""
        ports = [Port(route, Channel[Message](route.capacity)) for route in routes(manifest)]
        self._inlets = _from(ports, None)
        self._tickets: Channel[Ticket] = Channel()
        self._order = Lock()  # one batch at a time enters the channels
        self._watched = Lock()  # one trace at a time
        collector = Collector(self._tickets, _into(ports, None))
        workers = [Worker(stage, _into(ports, stage.index), _from(ports, stage.index)) for stage in stages]
        threads = [Thread(target=collector.run, name=f"{manifest.name} collector", daemon=True)]
        for worker in workers:
            threads.append(Thread(target=worker.run, name=f"{manifest.name} stage {worker.stage.index}", daemon=True))
        self._shut = weakref.finalize(self, _shut, [self._tickets, *(port.channel for port in ports)], threads)
        for thread in threads:
            thread.start()

    def send(self, message: Values | Reset | Watch, finish: Finish = tuple) -> Future[Any]:
        """Start a batch, or what every stage does between two, after those sent before.

        The future holds what FINISH makes of the outputs, on the collecting thread; or a StageError.
        """
        ticket = Ticket(finish)
        with self._order:
            try:
                self._tickets.send(ticket)
                send_all(self._inlets, message)
            except ChannelClosed:
                self.require_open()
            except BaseException:  # an interrupt: only some stages have the batch, and would mix it with the next
                self.close()
                raise
        return ticket.future

    @contextmanager
    def watch(self, trace: Trace) -> Iterator[None]:
        """Have every stage record what is sent meanwhile.  When it ends, that is done, or the pipeline is closed."""
        if not self._watched.acquire(blocking=False):
            raise RuntimeError("this pipeline is traced already; end that trace before another begins")
        try:
            self.send(Watch(trace)).result()
            try:
                yield
            finally:
                with suppress(PipelineClosed):
                    self.send(Watch(None)).result()
        finally:
            self._watched.release()

    def require_open(self) -> None:
        if not self._shut.alive:
            raise PipelineClosed("this pipeline is closed; load it again with Pipeline.load")

    def close(self) -> None:
        """Stop the threads, which lets go of the stages.  What is in flight fails with PipelineClosed."""
        self._shut()


def _from(ports: Sequence[Port], source: int | None) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.route.source == source)


def _into(ports: Sequence[Port], target: int | None) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.route.target == target)


def _shut(channels: Sequence[Channel[Any]], threads: Sequence[Thread]) -> None:
    """Also when the engine is forgotten, on whatever thread that happens, and when Python ends."""
    for channel in channels:
        channel.close()
    deadline = time.monotonic() + GRACE
    for thread in threads:
        if thread is not current_thread() and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    for channel in channels:
        channel.drain()
