"""A model cut into stages, called as the model was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from runtime.call.inputs import Inputs
from runtime.call.microbatches import BatchSplit
from runtime.call.tree import parse
from runtime.device.placement import place_stages
from runtime.device.streams import made_by_now
from runtime.distributed.bootstrap import TIMEOUT, start
from runtime.distributed.monitor import Monitor
from runtime.engine.collector import Finish
from runtime.engine.engine import Engine
from runtime.engine.message import Reset, Values
from runtime.manifest import Manifest
from runtime.stage.loader import load_stages
from runtime.stage.speed import Speed
from runtime.trace import perfetto
from runtime.trace.traces import Trace

Build = Callable[[Sequence[torch.Tensor], Mapping[str, int]], Any]  # outputs and sizes -> what the caller gets


class Pipeline:
    """An artifact, running.

        with Pipeline.load("build/gpt2") as pipe:
            y = pipe(*args, **kwargs)                 # what the model returns
            for y in pipe.map(batches, in_flight=8):  # a stream: the stages work at once
                ...

    Inputs may be on any device; they must not be changed before their result is there.  Outputs are
    on the device of the inputs if they share one, else on that of the stage that makes them.  Any
    thread may call; batches run in the order of the calls.  After a StageError the pipeline goes on
    with the next batch.
    """

    def __init__(
        self, manifest: Manifest, devices: Sequence[torch.device], engine: Engine, monitor: Monitor | None = None
    ) -> None:
        """Most callers want `Pipeline.load` or `Pipeline.distributed`.  DEVICES: of each stage."""
        self.manifest = manifest
        self.devices = tuple(devices)
        self._inputs = Inputs.parse(manifest)
        self._returns = parse(manifest.signature.returns, manifest.symbols, len(manifest.outputs))
        self._engine = engine
        self._monitor = monitor

    @classmethod
    def load(
        cls,
        folder: str | Path,
        devices: Sequence[str | torch.device] | str | torch.device | None = None,
        *,
        strict: bool = False,
        timeout: float | None = None,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> Pipeline:
        """Load an artifact folder and start it.

        DEVICES: one for each stage, or one for each device of the plan in the order in which the
        stages use them, or fewer, to share; without it, the plan's.  STRICT refuses files that differ
        from the manifest, where otherwise an edited stage file runs with a warning.  A stage that is
        busy with one batch for TIMEOUT seconds is given up: all that is in flight fails with a
        StageError that names it, and the pipeline is closed.  COMPILE has torch.compile make the stages
        faster, CUDA_GRAPHS starts all kernels of a stage at once; both prepare at the first batch of a size.

        Raises ManifestError for a folder that cannot be run, DeviceError for devices that are not here.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        devices = [devices] if isinstance(devices, (str, torch.device)) else devices
        placed = place_stages([stage.device for stage in manifest.stages], devices)
        stages = load_stages(folder, manifest, placed, strict=strict, speed=Speed(compile, cuda_graphs))
        return cls(manifest, placed, Engine(manifest, stages, timeout))

    @classmethod
    def distributed(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        *,
        strict: bool = False,
        timeout: float = TIMEOUT,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> Pipeline:
        """Load an artifact folder in the processes that torchrun started, one for each stage or fewer.

            with Pipeline.distributed("build/gpt2") as pipe:
                if pipe.rank == 0:
                    y = pipe(*args, **kwargs)

        Rank 0 calls; the others leave the block when rank 0 does.  Each loads only the weights of its
        stages, onto its DEVICE, by default one of the plan's kind.  A stage that is busy with one batch,
        a process that gives no sign of life, and one that does not come or load, are each given up after
        TIMEOUT seconds: then rank 0 gets a StageError, and the other processes end, with status 1.
        COMPILE and CUDA_GRAPHS: as for `load`.

        Raises ManifestError, DeviceError or DistributedError, on rank 0 for all.
        """
        job = start(Path(folder), device, strict=strict, timeout=timeout, speed=Speed(compile, cuda_graphs))
        return cls(job.manifest, job.devices, job.engine, job.monitor)

    @property
    def rank(self) -> int:
        """Of this process among those that run the pipeline.  0 makes the calls."""
        return 0 if self._monitor is None else self._monitor.rank

    def __call__(self, *args: Any, microbatches: int = 1, **kwargs: Any) -> Any:
        """What the model would return.  Raises InputError before anything runs, or StageError.

        MICROBATCHES: the parts into which the batch is split, so that all stages work on it at once.
        """
        return self.submit(*args, microbatches=microbatches, **kwargs).result()

    def submit(self, *args: Any, microbatches: int = 1, **kwargs: Any) -> Future[Any]:
        """Start a batch; the future holds what the model would return, or a StageError.

        Raises InputError before anything runs.
        """
        self._engine.require_open()
        return self._send(self._inputs.bind(args, kwargs), microbatches, self._returns.build)

    def map(self, batches: Iterable[Any], in_flight: int = 8) -> Iterator[Any]:
        """Run a stream of batches, at most IN_FLIGHT at a time, and yield their results in order.

        A batch that is a tuple is called as `pipe(*batch)`, a mapping as `pipe(**batch)`, anything
        else as `pipe(batch)`.  BATCHES is read as results are taken.  What goes wrong with one batch, in
        reading, checking or running it, is raised when its turn comes, after the results before it;
        then, as when the caller stops early, what is still in flight is finished and dropped.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; at least one batch must be in flight")
        self._engine.require_open()
        return _in_order(self._submit_each(batches), in_flight)

    def run_named(self, tensors: Mapping[str, torch.Tensor], *, microbatches: int = 1) -> dict[str, torch.Tensor]:
        """Run one batch of input tensors by their names in the manifest; returns the outputs by theirs."""
        self._engine.require_open()
        names = [tensor.name for tensor in self.manifest.outputs]
        batch = self._inputs.bind_named(tensors)
        return self._send(batch, microbatches, lambda outputs, _: dict(zip(names, outputs, strict=True))).result()

    def reset(self) -> None:
        """Put the state of all stages (caches, running statistics) back to what it was when loaded.

        Batches sent before are not touched by it.  Returns when they, and it, are done.
        """
        self._engine.send(Reset()).result()

    @contextmanager
    def trace(self, path: str | Path | None = None) -> Iterator[Trace]:
        """Record what the stages run in this block, and write it to PATH, if given, when the block ends.

            with pipe.trace("trace.json") as trace:
                results = list(pipe.map(batches))
            print(trace.runs[0].ended - trace.runs[0].started)  # seconds on the device

        ui.perfetto.dev and chrome://tracing open the file.  Only the batches sent within the block
        are recorded; it ends when they are done.  Raises RuntimeError within another trace.
        """
        if path is not None and not (folder := Path(path).absolute().parent).is_dir():
            raise FileNotFoundError(f"cannot write the trace {path}: {folder} is no folder")
        trace = Trace(self.manifest, self.devices)
        try:
            with self._engine.trace(trace):
                yield trace
        finally:
            if path is not None:
                perfetto.write(Path(path), trace)

    def close(self) -> None:
        """Stop, and let go of the stages.  Batches in flight fail with PipelineClosed.  May be called twice.

        On other ranks than 0: wait until rank 0 does, and run the stages meanwhile.
        """
        if self._monitor is not None and self.rank != 0:
            self._monitor.serve()
        self._engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._monitor is not None and error is not None:
            self._monitor.leave_by(error)
        self.close()

    def _send(self, batch: Values, microbatches: int, build: Build) -> Future[Any]:
        sizes, batch = batch.sizes, replace(batch, ready=made_by_now(batch.tensors))
        if microbatches == 1:
            return self._send_part(batch, lambda outputs: build(outputs, sizes))
        *first, last = self._split.parts(batch, microbatches)
        futures = [self._send_part(part, tuple) for part in first]
        # The last part is done after all others, and joins them.
        return self._send_part(last, lambda outputs: build(self._join(futures, outputs), sizes))

    def _send_part(self, part: Values, finish: Finish) -> Future[Any]:
        return self._engine.send(part, partial(self._finish, finish), part.device)

    def _finish(self, finish: Finish, outputs: tuple[torch.Tensor, ...]) -> Any:
        """A method: the pipeline is not let go of while a batch is in flight, as its inputs are."""
        return finish(outputs)

    def _join(
        self, first: Sequence[Future[tuple[torch.Tensor, ...]]], last: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        return self._split.join([*(part.result() for part in first), last])

    @cached_property
    def _split(self) -> BatchSplit:
        return BatchSplit.of(self.manifest)

    def _submit_each(self, batches: Iterable[Any]) -> Iterator[Future[Any]]:
        """The last future holds what went wrong with reading or checking a batch."""
        try:
            yield from map(self._submit_one, batches)  # a loop would hold on to its batch
        except Exception as e:
            failed: Future[Any] = Future()
            failed.set_exception(e)
            yield failed

    def _submit_one(self, batch: Any) -> Future[Any]:
        match batch:
            case tuple():
                return self.submit(*batch)
            case Mapping():
                return self.submit(**batch)
            case _:
                return self.submit(batch)


def _in_order(futures: Iterator[Future[Any]], in_flight: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    try:
        while True:
            waiting.extend(islice(futures, in_flight - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        wait(waiting)
