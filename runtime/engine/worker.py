"""The thread of one stage: receive, run, send, batch after batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from runtime.device.packs import Pack
from runtime.device.streams import made_by_now, made_in, within
from runtime.engine.boxes import taken
from runtime.engine.channel import ChannelClosed
from runtime.engine.message import Failure, FinishKernels, Launched, Message, Reset, SetTrace, Values
from runtime.engine.ports import Port, receive_all, send_all
from runtime.errors import StageError
from runtime.stage.stage import LoadedStage, ShapeKey, StageLaunch
from runtime.trace.traces import StageTrace, Trace


@dataclass
class RunningBatch:
    """A batch that a stage has begun, on the host or on its device."""

    number: int
    received: Sequence[torch.Event]  # events after which its inputs exist
    made: Sequence[torch.Event] | None = None  # events after which its outputs exist; None while the host runs it
    kept: Sequence[object] = ()  # what its device may still read, if nothing else keeps that from being used again

    @property
    def done(self) -> bool:
        return self.made is not None and all(event.query() for event in self.made)


NOTED = 1024  # sizes whose keys are noted
SizesKey = tuple[int, tuple[int, ...]]  # the program of a batch, and its sizes


def sizes_key(batch: Values) -> SizesKey:
    """A key that is equal for batches of a program that have equal sizes."""
    return batch.program, tuple(batch.sizes.values())


class Worker:
    """A stage between its ports."""

    def __init__(self, stage: LoadedStage, inlets: Sequence[Port], outlets: Sequence[Port]) -> None:
        self.stage = stage
        self.inlets = inlets
        self.outlets = outlets
        self._running: deque[RunningBatch] = deque()
        self._count = 0
        self.answered = 0  # messages that it received, and has done with
        self._keys: dict[SizesKey, ShapeKey] = {}  # by program and sizes: what graphs know a batch by
        self._graphs: dict[SizesKey, StageLaunch] = {}  # those found since the last message
        self._trace: StageTrace | None = None  # while a trace is on

    def run(self) -> None:
        """Until a channel is closed.  Gradients and the current stream are set for this thread alone."""
        torch.get_num_threads()  # has this thread take torch.set_num_threads(): MKL alone would use all cores
        with torch.no_grad(), within(self.stage.stream):
            try:
                while True:
                    # Nested, so that no name holds tensors of this batch while the next is awaited.
                    send_all(self.outlets, self._answered(receive_all(self.inlets)))
            except ChannelClosed:
                return

    @property
    def busy_with(self) -> int | None:
        """The number of the batch that the stage runs; None if it is idle or awaits inputs.  Any thread may ask."""
        for batch in [*self._running]:
            if not batch.done:
                return batch.number if all(event.query() for event in batch.received) else None
        return None

    def graph_of(self, sizes: SizesKey) -> StageLaunch | None:
        """The graph that is all that the stage does for batches of these sizes, if there is one.

        It counts as used by the first of them behind a message, as only messages have graphs recorded or forgotten.
        """
        if (known := self._graphs.get(sizes)) is not None:
            return known
        if self._trace is not None or (key := self._keys.get(sizes)) is None:
            return None
        graph = self.stage.programs[sizes[0]].graph_of(key)
        if graph is None:
            del self._keys[sizes]  # the next batch of these sizes may be recorded by another key
        else:
            self._graphs[sizes] = graph
        return graph

    def launch(
        self,
        graph: StageLaunch,
        tensors: Sequence[torch.Tensor],
        ready: Sequence[torch.Event],
        pack: Pack | None = None,
    ) -> Launched:
        """Launch the graph of a batch on the thread that asks, while this one has none, without gradients.

        `pack`: where tensors of the caller lie.  Raises StageError.
        """
        running = self._begin(ready)
        running.kept = (*tensors, pack)
        try:
            with self.stage.reading(tensors, ready):
                made = graph.launch(tensors, pack)
                running.made = made_in(self.stage.stream)
        except BaseException as e:
            with suppress(RuntimeError):  # what the device was given until then may still read what is kept
                running.made = made_in(self.stage.stream)
            raise StageError(self.stage.index, str(self.stage.device), e) from e
        finally:
            running.made = running.made or ()
        return Launched(made, tuple(running.made))

    def run_graph(
        self, graph: StageLaunch, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event], batch: Values
    ) -> Launched:
        """The same for tensors that may change once the device has read them, and with the parts that `batch` wants.

        Raises StageError.
        """
        running = self._begin(ready)
        try:
            with within(self.stage.stream):
                made = graph.run(self.stage.receive(tensors, ready))
                parts = self._parts(made, batch)
                running.made = made_in(self.stage.stream)
        except Exception as e:
            raise StageError(self.stage.index, str(self.stage.device), e) from e
        finally:
            running.made = running.made or ()
        return Launched(made, tuple(running.made), parts)

    def _answered(self, message: Message) -> Message:
        self._graphs.clear()
        try:
            return self._answer(message)  # no name holds a failure, whose traceback knows this frame
        finally:
            self.answered += 1

    def _answer(self, message: Message) -> Message:
        running = self._begin(message.ready if isinstance(message, Values) else ())
        try:
            match message:
                case Values():
                    tensors = self._run(message)
                    parts = self._parts(tensors, message)
                    running.made = made_by_now((*tensors, *parts.values()))
                    return Values(tensors, ready=running.made, program=message.program, parts=parts)
                case Failure() if self._trace is not None:
                    self._trace.skip()
                case Reset():
                    self.stage.reset()
                case FinishKernels():
                    self.stage.kernels.finish()
                case SetTrace(trace):
                    self._set_trace(trace)
            return message
        except BaseException as e:  # a thread that ends would leave the caller waiting
            return Failure(StageError(self.stage.index, str(self.stage.device), e))
        finally:
            running.made = running.made or ()

    def _begin(self, received: Sequence[torch.Event]) -> RunningBatch:
        while self._running and self._running[0].done:
            self._running.popleft()
        self._count += 1
        self._running.append(RunningBatch(self._count, received))
        return self._running[-1]

    def _run(self, batch: Values) -> tuple[torch.Tensor, ...]:
        if self._trace is not None:
            return self._trace.run(self.stage, batch.tensors, batch.ready, batch.sizes, batch.program)
        received = self.stage.receive(batch.tensors, batch.ready)
        self._note_key(batch, received)
        return self.stage(received, batch.sizes, batch.program)

    def _note_key(self, batch: Values, received: Sequence[torch.Tensor]) -> None:
        module, sizes = self.stage.programs[batch.program], sizes_key(batch)
        if module.graphs is None or sizes in self._keys:
            return
        if len(self._keys) == NOTED:
            self._keys.clear()
        self._keys[sizes] = module.key_of(received, batch.sizes)

    def _parts(self, made: Sequence[torch.Tensor], batch: Values) -> dict[int, torch.Tensor]:
        """The parts that the caller wants of outputs that this stage made, by the indices of the outputs."""
        if not batch.wanted:
            return {}
        home = [port.route.programs[batch.program] for port in self.outlets if port.route.target is None]
        outputs = [pair for carried in home for pair in zip(carried.places, carried.takes, strict=True)]
        return {place: taken(made[i], batch.wanted[place]) for place, i in outputs if place in batch.wanted}

    def _set_trace(self, trace: Trace | None) -> None:
        self._trace = None
        if trace is not None:
            self._trace = trace.stages[self.stage.index]
            self._trace.begin()
