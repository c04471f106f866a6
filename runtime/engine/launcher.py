"""Batches that the caller's thread launches itself, where each stage is one graph: no other thread takes part."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from runtime.engine.message import Values
from runtime.engine.routes import Route
from runtime.engine.worker import Worker
from runtime.stage.stage import launching


@dataclass(frozen=True)
class _Received:
    """The tensors that a stage, or the caller, receives in a program: of each its source, and its place there."""

    taken: tuple[tuple[int | None, int], ...]
    sources: tuple[int | None, ...]  # each once

    @classmethod
    def by(cls, target: int | None, routes: Sequence[Route], program: int) -> _Received:
        found: dict[int, tuple[int | None, int]] = {}
        for route in routes:
            if route.target == target:
                carried = route.programs[program]
                found |= {place: (route.source, i) for i, place in zip(carried.takes, carried.places, strict=True)}
        taken = tuple(found[place] for place in range(len(found)))
        return cls(taken, tuple(dict.fromkeys(source for source, _ in taken)))

    def of(self, sent: Mapping[int | None, Values]) -> tuple[list[torch.Tensor], tuple[torch.Event, ...]]:
        """The tensors, and the events after which they exist."""
        tensors = [sent[source].tensors[i] for source, i in self.taken]
        if len(self.sources) == 1:
            return tensors, sent[self.sources[0]].ready
        return tensors, tuple(event for source in self.sources for event in sent[source].ready)


class Launcher:
    """All stages of a pipeline, one after the other on the thread that asks."""

    def __init__(self, workers: Sequence[Worker], routes: Sequence[Route]) -> None:
        self._workers = tuple(map(weakref.ref, workers))  # stages are let go as their threads end
        programs = range(len(routes[0].programs))
        ends = (*(worker.stage.index for worker in workers), None)
        self._received = [{end: _Received.by(end, routes, program) for end in ends} for program in programs]

    def launch(self, message: Values, sent: int) -> Values | None:
        """The outputs of a batch; None, and nothing happens, where a stage would do more than launch a graph.

        And where a worker has not answered all messages that were `sent`.  No tensor may ever change: stages know one
        that they have had.  Raises StageError.
        """
        known = [worker for of in self._workers if (worker := of()) is not None and worker.answered == sent]
        if len(known) < len(self._workers):
            return None
        with launching() as allowed:
            found = (worker.graph_of(message) for worker in known) if allowed else ()
            graphs = [graph for graph in found if graph is not None]
            if len(graphs) < len(known):
                return None
            made: dict[int | None, Values] = {None: message}
            received = self._received[message.program]
            for worker, graph in zip(known, graphs, strict=True):
                index = worker.stage.index
                made[index] = worker.launch(graph, *received[index].of(made), message.pack)
            tensors, ready = received[None].of(made)
        return Values(tuple(tensors), ready=ready, program=message.program)
