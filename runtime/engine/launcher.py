"""Batches that the caller's thread launches itself, where each stage is one graph: no other thread takes part."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from runtime.engine.message import Launched, Values
from runtime.engine.routes import Route
from runtime.engine.worker import Worker, sizes_key
from runtime.stage.stage import launching


@dataclass(frozen=True)
class _Received:
    """The tensors that a stage, or the caller, receives in a program: of each its source, and its place there."""

    taken: tuple[tuple[int | None, int], ...]
    awaited: tuple[int | None, ...]  # the sources, without those that another one has waited for

    def of(self, sent: Mapping[int | None, Values | Launched]) -> tuple[list[torch.Tensor], tuple[torch.Event, ...]]:
        """The tensors, and the events after which they exist."""
        tensors = [sent[source].tensors[i] for source, i in self.taken]
        if len(self.awaited) == 1:
            return tensors, sent[self.awaited[0]].ready
        return tensors, tuple(event for source in self.awaited for event in sent[source].ready)


def _received(ends: Sequence[int | None], routes: Sequence[Route], program: int) -> dict[int | None, _Received]:
    """The tensors that each end receives in a program; an end comes behind those that it receives from."""
    received: dict[int | None, _Received] = {}
    waited: dict[int | None, set[int | None]] = {}
    for end in ends:
        taken = _taken(end, routes, program)
        sources = dict.fromkeys(source for source, _ in taken)
        behind = {before for source in sources for before in waited.get(source, ())}
        waited[end] = behind | sources.keys()
        received[end] = _Received(taken, tuple(source for source in sources if source not in behind))
    return received


def _taken(target: int | None, routes: Sequence[Route], program: int) -> tuple[tuple[int | None, int], ...]:
    """Of each tensor that an end receives its source, and its place there."""
    found: dict[int, tuple[int | None, int]] = {}
    for route in routes:
        if route.target == target:
            carried = route.programs[program]
            found |= {place: (route.source, i) for i, place in zip(carried.takes, carried.places, strict=True)}
    return tuple(found[place] for place in range(len(found)))


class Launcher:
    """All stages of a pipeline, one after the other on the thread that asks."""

    def __init__(self, workers: Sequence[Worker], routes: Sequence[Route]) -> None:
        self._workers = tuple(map(weakref.ref, workers))  # stages are let go as their threads end
        ends = (*sorted(worker.stage.index for worker in workers), None)
        self._received = [_received(ends, routes, program) for program in range(len(routes[0].programs))]

    def launch(self, message: Values, sent: int) -> Values | None:
        """The outputs of a batch; None, and nothing happens, where a stage would do more than launch a graph.

        And where a worker has not answered all messages that were `sent`.  No tensor may ever change: stages know one
        that they have had.  Raises StageError.
        """
        return self._begun(message, sent, lambda worker, *given: worker.launch(*given, message.pack))

    def run(self, message: Values, sent: int) -> Values | None:
        """The same for a batch whose tensors may change once devices have read them; parts of outputs may be wanted."""
        return self._begun(message, sent, lambda worker, *given: worker.run_graph(*given, message))

    def _begun(self, message: Values, sent: int, begin: Callable[..., Launched]) -> Values | None:
        known = [worker for of in self._workers if (worker := of()) is not None and worker.answered == sent]
        if len(known) < len(self._workers):
            return None
        with launching() as allowed, torch.inference_mode(False), torch.no_grad():  # as on the threads of stages
            sizes = sizes_key(message)
            graphs = [graph for worker in known if (graph := worker.graph_of(sizes)) is not None] if allowed else []
            if len(graphs) < len(known):
                return None
            made: dict[int | None, Values | Launched] = {None: message}
            received = self._received[message.program]
            for worker, graph in zip(known, graphs, strict=True):
                index = worker.stage.index
                made[index] = begin(worker, graph, *received[index].of(made))
            tensors, ready = received[None].of(made)
            parts = {place: part for of in made.values() for place, part in of.parts.items()}
        outputs = [parts.get(place, tensor) for place, tensor in enumerate(tensors)]
        return Values(tuple(outputs), ready=ready, program=message.program)
