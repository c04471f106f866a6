"""Batches that the caller's thread launches itself, where each stage is one graph: no other thread takes part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from runtime.engine.message import Values
from runtime.engine.routes import Route
from runtime.engine.worker import Worker
from runtime.stage.stage import launching

_Taken = list[tuple[int | None, int]]  # of each tensor that a stage or the caller receives: its source, and place there


class Launcher:
    """All stages of a pipeline, one after the other on the thread that asks."""

    def __init__(self, workers: Sequence[Worker], routes: Sequence[Route]) -> None:
        self._workers = workers
        programs = range(len(routes[0].programs))
        ends = (*(worker.stage.index for worker in workers), None)
        self._taken = [{end: _taken(routes, end, program) for end in ends} for program in programs]

    def launch(self, message: Values) -> Values | None:
        """The outputs of a batch; None, and nothing happens, where a stage would do more than launch a graph.

        Must be called while no worker has a batch.  No tensor may ever change: stages know one that they have had.
        Raises StageError.
        """
        with launching() as allowed:
            found = (worker.graph_of(message) for worker in self._workers) if allowed else ()
            graphs = [graph for graph in found if graph is not None]
            if len(graphs) < len(self._workers):
                return None
            sent: dict[int | None, Values] = {None: message}
            taken = self._taken[message.program]
            for worker, graph in zip(self._workers, graphs, strict=True):
                index = worker.stage.index
                sent[index] = worker.launch(graph, *_received(taken[index], sent))
            tensors, ready = _received(taken[None], sent)
        return Values(tensors, ready=ready, program=message.program)


def _taken(routes: Sequence[Route], target: int | None, program: int) -> _Taken:
    found: dict[int, tuple[int | None, int]] = {}
    for route in routes:
        if route.target == target:
            carried = route.programs[program]
            found |= {place: (route.source, i) for i, place in zip(carried.takes, carried.places, strict=True)}
    return [found[place] for place in range(len(found))]


def _received(
    taken: _Taken, sent: dict[int | None, Values]
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Event, ...]]:
    """Tensors, and the events after which they exist."""
    sources = dict.fromkeys(source for source, _ in taken)
    return tuple(sent[source].tensors[i] for source, i in taken), (*chain(*(sent[s].ready for s in sources)),)
