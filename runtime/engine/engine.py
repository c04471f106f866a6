"""The stages of an artifact that run in this process, on threads."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event, Lock, Thread, current_thread
from typing import Any

import torch

from runtime.device.streams import current_streams
from runtime.engine.channel import Channel, ChannelClosed, Closable
from runtime.engine.collector import Collector, Finish, Ticket
from runtime.engine.message import Reset, Values, Watch, send_all
from runtime.engine.ports import Ports, Runner, in_one_process
from runtime.engine.watchdog import Watchdog
from runtime.engine.worker import Worker
from runtime.errors import PipelineClosed
from runtime.manifest import Manifest
from runtime.stage.stage import LoadedStage
from runtime.trace.recording import Trace

GRACE = 5.0  # seconds that closing waits for the stages to finish what they run


class Engine:
    """One thread for each stage, and one that collects the outputs.

    Every message passes every stage, in the order in which they were sent: so the channels never
    need to say of which batch their tensors are.
    """

    def __init__(
        self,
        manifest: Manifest,
        stages: Sequence[LoadedStage],
        timeout: float | None = None,
        ports: Ports | None = None,
    ) -> None:
        """Start the threads.  Raises ManifestError where the stages do not fit together.

        TIMEOUT: the seconds after which a stage that still runs one batch is given up, and the engine with it.
        PORTS: of these stages, where others run in other processes.
        """
        ports = in_one_process(manifest) if ports is None else ports
        self._inlets, self._orders = ports.outlets(None), ports.orders
        self._devices = {stage.device for stage in stages}
        self._tickets: Channel[Ticket] = Channel()
        self._order = Lock()  # one batch at a time enters the channels
        self._watched = Lock()  # one trace at a time
        workers = [Worker(stage, ports.inlets(stage.index), ports.outlets(stage.index)) for stage in stages]
        named: list[tuple[str, Runner]] = [("collector", Collector(self._tickets, ports.inlets(None)))]
        named += [(f"stage {worker.stage.index}", worker) for worker in workers]
        named += [(type(runner).__name__.lower(), runner) for runner in ports.runners]
        channels, stop = [self._tickets, *ports.channels()], Event()
        # Whoever closes them ends the engine.  The links come last: what waits for one goes on with anything.
        self.closables: Sequence[Closable] = (*ports.alarms, *channels, *ports.links)
        if timeout is not None:
            named.append(("watchdog", Watchdog(workers, self.closables, timeout, stop)))
        threads = [Thread(target=runner.run, name=f"{manifest.name} {name}", daemon=True) for name, runner in named]
        self._shut = weakref.finalize(self, _shut, stop, self.closables, channels, [*threads, *ports.threads])
        for thread in threads:
            thread.start()

    def send(
        self, message: Values | Reset | Watch, finish: Finish = tuple, home: torch.device | None = None
    ) -> Future[Any]:
        """Start a batch, or what every stage does between two, after those sent before.

        The future holds what FINISH makes of the outputs, brought HOME, on the collecting thread; or a StageError.
        """
        ticket = Ticket(finish, home, current_streams([*self._devices, *([] if home is None else [home])]))
        self.require_open()
        order = replace(message, tensors=()) if isinstance(message, Values) else message
        with self._order:
            try:
                self._tickets.send(ticket)
                for channel in self._orders:
                    channel.send(order)
                send_all(self._inlets, message)
            except ChannelClosed as e:
                raise _closed(e) from e.__cause__
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
        """Raises PipelineClosed, or RuntimeError where the caller is in another process."""
        if not self._inlets:
            raise RuntimeError("rank 0 makes the calls; put them under `if pipe.rank == 0:`")
        try:
            self._tickets.require_open()
        except ChannelClosed as e:
            raise _closed(e) from e.__cause__

    def close(self) -> None:
        """Stop the threads, which lets go of the stages.  What is in flight fails with PipelineClosed."""
        self._shut()


def _closed(closed: ChannelClosed) -> PipelineClosed:
    reason = f", as {closed.__cause__}" if closed.__cause__ else ""
    return PipelineClosed(f"this pipeline is closed{reason}; load it again with Pipeline.load")


def _shut(
    stop: Event, closables: Sequence[Closable], channels: Sequence[Channel[Any]], threads: Sequence[Thread]
) -> None:
    """Also when the engine is forgotten, on whatever thread that happens, and when Python ends."""
    stop.set()
    for closable in closables:
        closable.close()
    deadline = time.monotonic() + GRACE
    for thread in threads:
        if thread is not current_thread() and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    for channel in channels:
        channel.drain()
