"""The stages of an artifact that run in this process, on threads."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event, Lock, Thread, current_thread
from typing import Any

import torch

from runtime.device.streams import current_streams
from runtime.engine.channel import Channel, ChannelClosed, Closable
from runtime.engine.collector import Arrivals, Collector, Early, Finish, Ticket, finished, lost
from runtime.engine.launcher import Launcher
from runtime.engine.message import Control, Failure, SetTrace, Values
from runtime.engine.ports import Ports, Runner, in_one_process, send_all
from runtime.engine.watchdog import Watchdog
from runtime.engine.worker import Worker
from runtime.errors import PipelineClosed, StageError
from runtime.manifest.manifest import Manifest
from runtime.stage.stage import LoadedStage
from runtime.trace.traces import Trace

CLOSE_GRACE = 5.0  # seconds that closing waits for the stages to finish what they run
COPIED_AT_ONCE = 1 << 20  # bytes of the host that the caller's thread copies; meanwhile it reads no further batch


class Engine:
    """One thread for each stage, and one that collects the outputs.

    Every message passes every stage, in the order in which they were sent, so messages need no batch number.
    """

    def __init__(
        self,
        manifest: Manifest,
        stages: Sequence[LoadedStage],
        timeout: float | None = None,
        ports: Ports | None = None,
        outputs_on: Collection[torch.device] = (),
    ) -> None:
        """Start the threads.  Raises ManifestError if the stages do not fit together, ValueError for a `timeout` <= 0.

        `timeout`: seconds that a stage may run one batch; then the engine is closed with a StageError.
        `ports`: those of these stages, if others run in other processes; `outputs_on`: devices where outputs may be,
        besides those of these stages.
        """
        is_whole = ports is None
        ports = in_one_process(manifest) if ports is None else ports
        self._inlets, self._control = ports.outlets(None), ports.control
        self.home = next((stage.device for stage in stages if ports.come_ahead_to(stage.device)), None)
        """The device of a stage here, to which all outputs can come before they exist; None if there is none."""
        self._devices = {*outputs_on, *(stage.device for stage in stages)}
        self._tickets: Channel[Ticket] = Channel()
        self._sending = Lock()  # held while one message enters the channels
        self._tracing = Lock()  # held while a trace is on
        self._arrivals = Arrivals(self._tickets.require_open)
        workers = [Worker(stage, ports.inlets(stage.index), ports.outlets(stage.index)) for stage in stages]
        self._sent = 0
        self._has_state = any(program.entry.state for stage in stages for program in stage.programs)
        self._process = os.getpid()
        self._launcher = Launcher(workers, [port.route for port in ports.outward]) if is_whole else None
        named: list[tuple[str, Runner]] = [("collector", Collector(self._tickets, ports.inlets(None), self._arrivals))]
        named += [(f"stage {worker.stage.index}", worker) for worker in workers]
        named += [(type(runner).__name__.lower(), runner) for runner in ports.runners]
        channels, stop = [self._tickets, *ports.channels()], Event()
        # Closing any of these shuts the engine down.
        # Links are closed last: a thread blocked on one may resume with arbitrary data.
        self.closables: Sequence[Closable] = (*ports.alarms, *channels, *ports.links)
        if timeout is not None:
            named.append(("watchdog", Watchdog(workers, self.closables, timeout, stop)))
        threads = [
            Thread(target=_run, args=(runner, self.closables), name=f"{manifest.name} {name}", daemon=True)
            for name, runner in named
        ]
        self._threads = threads
        self._shut = weakref.finalize(
            self, _shut, self._process, stop, self.closables, channels, [*threads, *ports.threads]
        )
        for thread in threads:
            thread.start()

    @property
    def is_open(self) -> bool:
        """False once the engine is closed, by `close` or by a fault, and in a fork of its process."""
        return self.is_here and not self._tickets.wait_closed(0)

    @property
    def is_here(self) -> bool:
        """False in a fork of the process that started the threads, which has none of them."""
        return self._process == os.getpid()

    def require_here(self) -> None:
        """Raises PipelineClosed in a fork of the process that started the threads."""
        if not self.is_here:
            raise PipelineClosed("this process is a fork of the one that loaded the pipeline; load it here, too")

    @property
    def is_running(self) -> bool:
        """Whether a thread still runs: after `close`, one whose stage does not come to an end."""
        return any(thread.is_alive() for thread in self._threads)

    def send(
        self,
        message: Control,
        finish: Finish = tuple,
        output_device: torch.device | None = None,
        early: Early | None = None,
    ) -> Future[Any]:
        """Send a message to all stages, after those sent before.

        The future holds `finish(outputs)`, called on the collecting thread with the outputs on `output_device`;
        or a StageError.  With `early` it holds `early(outputs)`, which devices may still compute: where they are made,
        or on `output_device`, those of other processes.
        Raises PipelineClosed.
        """
        streams = self._callers_streams(output_device)
        self.require_open()
        with self._sending:
            launched = None
            if isinstance(message, Values) and early is None and _is_soon_copied(message.tensors):
                launched = self._answer(message)
            ticket = Ticket(finish, output_device, early, streams, launched)
            try:
                self._tickets.send(ticket)
                if ticket.launched is None:
                    self._send_to_stages(message)
            except ChannelClosed as e:
                raise _closed(e) from e.__cause__
            except BaseException:  # an interrupt: only some stages have the batch, and would mix it with the next
                if ticket.launched is None:
                    self.close()
                raise
        return ticket.future

    def _send_to_stages(self, message: Control) -> None:
        header = replace(message, tensors=()) if isinstance(message, Values) else message
        self._sent += 1
        with suppress(ChannelClosed):  # a stage was lost meanwhile: this batch is in flight and fails with all others
            for channel in self._control:
                channel.send(header)
            send_all(self._inlets, message)

    def run(self, batch: Values, finish: Finish, output_device: torch.device | None = None) -> Any:
        """The result that a future of `send` would hold.  Raises PipelineClosed or StageError.

        Where all that stages do is to launch graphs, no other thread takes part.
        """
        self.require_open()
        with self._sending:
            made = self._launched(batch)
        if made is None:
            return self.send(batch, finish, output_device).result()
        with torch.inference_mode(False), torch.no_grad():  # as on the collecting thread
            return finished(finish, self._arrived(output_device, made), self._callers_streams(output_device))

    def _launched(self, batch: Values) -> Values | None:
        """The outputs of a batch, if all that stages do for it is to launch graphs.  Raises StageError."""
        try:
            return self._launcher.run(batch, self._sent) if self._launcher else None
        except StageError:
            raise
        except BaseException:  # an interrupt: only some stages have the batch
            if self._has_state:  # which would be that of other batches in other stages
                self.close()
            raise

    def _answer(self, batch: Values) -> Values | Failure | None:
        """The same, with the failure of a stage in place of a StageError."""
        try:
            return self._launched(batch)
        except StageError as e:
            for error in filter(None, (e, e.__cause__)):
                error.__traceback__ = None  # it knows frames that know the batch, and by their callers its future
            return Failure(e)

    def _arrived(self, device: torch.device | None, outputs: Values) -> tuple[torch.Tensor, ...]:
        """The outputs on `device`, see `Arrivals`.  Raises what the engine was closed for, or PipelineClosed."""
        try:
            return self._arrivals.on(device, outputs)
        except ChannelClosed as e:
            cause = e.__cause__
        try:
            raise lost(cause)  # out of the handler, which would take its cause from it, or give it a context
        finally:
            del cause

    def _callers_streams(self, output_device: torch.device | None) -> tuple[torch.Stream, ...]:
        return current_streams([*self._devices, *([] if output_device is None else [output_device])])

    def launch(self, batch: Values) -> Values | None:
        """The outputs of a batch, which devices may still compute, if all that stages do for it is to launch graphs.

        None, and nothing happens, where it is not, or a stage is busy.  No tensor of the batch may ever change.  Raises
        PipelineClosed or StageError.
        """
        self.require_open()
        with self._sending:
            return self._launcher.launch(batch, self._sent) if self._launcher else None

    @contextmanager
    def trace(self, trace: Trace) -> Iterator[None]:
        """Trace all batches that are sent within the block.  It ends when they are done, or the engine is closed.

        Raises RuntimeError within another trace.
        """
        if not self._tracing.acquire(blocking=False):
            raise RuntimeError("this pipeline is traced already; end that trace before another begins")
        try:
            self.send(SetTrace(trace)).result()
            try:
                yield
            finally:
                with suppress(PipelineClosed):
                    self.send(SetTrace(None)).result()
        finally:
            self._tracing.release()

    def require_open(self) -> None:
        """Raises PipelineClosed, or RuntimeError on another rank than the caller's."""
        if not self._inlets:
            raise RuntimeError("rank 0 makes the calls; put them under `if pipe.rank == 0:`")
        self.require_here()
        try:
            self._tickets.require_open()
        except ChannelClosed as e:
            raise _closed(e) from e.__cause__

    def close(self) -> None:
        """Stop the threads and release the stages.  All that is in flight fails with PipelineClosed."""
        self._shut()


def _run(runner: Runner, closables: Sequence[Closable]) -> None:
    """Run a thread of the engine.  What ends it but a closed channel shuts the engine: callers would wait for ever."""
    try:
        runner.run()
    except BaseException as e:
        cause: Exception = e if isinstance(e, Exception) else RuntimeError(repr(e))
        if isinstance(runner, Worker):
            cause = StageError(runner.stage.index, str(runner.stage.device), e)
        for closable in closables:
            closable.close(cause)
        if isinstance(runner, Collector):
            runner.abandon(cause)


def _is_soon_copied(tensors: Sequence[torch.Tensor]) -> bool:
    return sum(tensor.nbytes for tensor in tensors if tensor.is_cpu) <= COPIED_AT_ONCE


def _closed(closed: ChannelClosed) -> PipelineClosed:
    reason = f", as {closed.__cause__}" if closed.__cause__ else ""
    return PipelineClosed(f"this pipeline is closed{reason}; load it again with Pipeline.load")


def _shut(
    owner: int, stop: Event, closables: Sequence[Closable], channels: Sequence[Channel[Any]], threads: Sequence[Thread]
) -> None:
    """Close everything and join the threads.  Runs also on garbage collection, on any thread, and at exit.

    Not in a fork of the `owner`, whose links it would close.
    """
    if os.getpid() != owner:
        return
    stop.set()
    for closable in closables:
        closable.close()
    deadline = time.monotonic() + CLOSE_GRACE
    for thread in threads:
        if thread is not current_thread() and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    for channel in channels:
        channel.drain()
