"""An artifact that runs in this process: a thread for each stage, and batches that flow through them."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from itertools import islice
from pathlib import Path
from threading import Lock, Thread, current_thread
from typing import Any

import torch

from runtime.channel import Channel, ChannelClosed
from runtime.collector import Collector, Finish, Ticket
from runtime.devices import place_stages
from runtime.errors import PipelineClosed
from runtime.inputs import Bound, Inputs
from runtime.loader import load_stages
from runtime.manifest import Manifest
from runtime.message import Message, Port, Values, send_all
from runtime.stage import LoadedStage
from runtime.tree import parse
from runtime.wiring import routes
from runtime.worker import Worker

GRACE = 5.0  # seconds that closing waits for the stages to finish what they run


class Pipeline:
    """A model cut into stages, called as the model was.

        with Pipeline.load("build/gpt2") as pipe:
            y = pipe(*args, **kwargs)                 # what the model returns
            for y in pipe.map(batches, in_flight=8):  # a stream: the stages work at once
                ...

    Inputs may be on any device.  Outputs are on the device of the inputs if they share one, else on
    that of the stage that makes them.  Any thread may call; batches run in the order of the calls.
    After a StageError the pipeline goes on with the next batch.
    """

    def __init__(self, manifest: Manifest, stages: Sequence[LoadedStage]) -> None:
        """Start the threads.  Most callers want `Pipeline.load`."""
        self.manifest = manifest
        self._inputs = Inputs.parse(manifest)
        self._returns = parse(manifest.signature.returns, manifest.symbols)
        self._stages = tuple(stages)
        self._order = Lock()  # batches enter all channels in one order
        self._last: Future[Any] | None = None
        self._tickets: Channel[Ticket] = Channel()
        ports = [Port(route, Channel[Message](route.capacity)) for route in routes(manifest)]
        self._outlets = tuple(port for port in ports if port.route.source is None)
        runners = [Collector(self._tickets, _into(ports, None)).run]
        for stage in stages:
            outlets = tuple(port for port in ports if port.route.source == stage.index)
            runners.append(Worker(stage, _into(ports, stage.index), outlets).run)
        names = ["collector", *(f"stage {stage.index}" for stage in stages)]
        threads = [
            Thread(target=run, name=f"{manifest.name} {name}", daemon=True)
            for run, name in zip(runners, names, strict=True)
        ]
        self._shut = weakref.finalize(self, _shut, [self._tickets, *(port.channel for port in ports)], threads)
        for thread in threads:
            thread.start()

    @classmethod
    def load(
        cls, folder: str | Path, devices: Sequence[str | torch.device] | None = None, *, strict: bool = False
    ) -> Pipeline:
        """Load an artifact folder and start it.

        DEVICES: one for each stage, or one for each device of the plan in the order in which the
        stages use them, or fewer, to share; without it, the plan's.  STRICT refuses files that differ
        from the manifest, where otherwise an edited stage file runs with a warning.

        Raises ManifestError for a folder that cannot be run, DeviceError for devices that are not here.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        placed = place_stages([stage.device for stage in manifest.stages], devices)
        return cls(manifest, load_stages(folder, manifest, placed, strict=strict))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model would return.  Raises InputError before anything runs, or StageError."""
        return self.submit(*args, **kwargs).result()

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Send a batch on its way; the future holds what the model would return, or a StageError.

        Raises InputError before anything runs.
        """
        self._require_open()
        return self._send(self._inputs.bind(args, kwargs), self._returns.build)

    def map(self, batches: Iterable[Any], in_flight: int = 8) -> Iterator[Any]:
        """Run a stream of batches, at most IN_FLIGHT at a time, and yield their results in order.

        A batch that is a tuple is called as `pipe(*batch)`, a dict as `pipe(**batch)`, anything else
        as `pipe(batch)`.  BATCHES is read as results are taken.  What goes wrong with one batch, in
        reading, checking or running it, is raised when its turn comes, after the results before it;
        then, as when the caller stops early, what is still in flight is finished and dropped.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; at least one batch must be in flight")
        self._require_open()
        return self._stream(self._submit_each(batches), in_flight)

    def run_named(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Call with the input tensors alone, by the names in the manifest; returns the outputs by theirs."""
        self._require_open()
        names = [tensor.name for tensor in self.manifest.outputs]
        finish: Finish = lambda outputs, sizes: dict(zip(names, outputs, strict=True))  # noqa: E731
        return self._send(self._inputs.bind_named(tensors), finish).result()

    def reset(self) -> None:
        """Put the state of all stages (caches, running statistics) back to what it was when loaded."""
        with self._order:
            self._require_open()
            if self._last is not None:
                wait([self._last])  # and so all before it
            for stage in self._stages:
                stage.reset()

    def close(self) -> None:
        """Stop the threads and drop the stages.  Batches in flight fail with PipelineClosed."""
        self._shut()
        self._stages = ()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if not self._shut.alive:
            raise PipelineClosed("this pipeline is closed; load it again with Pipeline.load")

    def _send(self, batch: Bound, finish: Finish) -> Future[Any]:
        ticket = Ticket.of(batch, finish)
        with self._order:
            self._last = ticket.future
            try:
                self._tickets.send(ticket)
                send_all(self._outlets, Values(batch.tensors, batch.sizes))
            except ChannelClosed:
                raise PipelineClosed("this pipeline is closed; load it again with Pipeline.load") from None
            except BaseException:  # an interrupt: only some stages have the batch, and would mix it with the next
                self.close()
                raise
        return ticket.future

    def _submit_each(self, batches: Iterable[Any]) -> Iterator[Future[Any]]:
        """The last future holds what went wrong with reading or checking a batch."""
        try:
            yield from map(self._submit_one, batches)  # `map`, for it keeps no batch
        except Exception as e:
            failed: Future[Any] = Future()
            failed.set_exception(e)
            yield failed

    def _submit_one(self, batch: Any) -> Future[Any]:
        match batch:
            case tuple():
                return self.submit(*batch)
            case dict():
                return self.submit(**batch)
            case _:
                return self.submit(batch)

    def _stream(self, futures: Iterator[Future[Any]], in_flight: int) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        try:
            while True:
                waiting.extend(islice(futures, in_flight - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            wait(waiting)


def _into(ports: Sequence[Port], target: int | None) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.route.target == target)


def _shut(channels: Sequence[Channel[Any]], threads: Sequence[Thread]) -> None:
    """Also when the pipeline is forgotten, on whatever thread that happens, and when Python ends."""
    for channel in channels:
        channel.close()
    deadline = time.monotonic() + GRACE
    for thread in threads:
        if thread is not current_thread() and thread.is_alive():
            thread.join(max(0.0, deadline - time.monotonic()))
    for channel in channels:
        channel.drain()
