"""A stage as CUDA graphs: recorded once for each shape that comes, then started as a whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from runtime.stage.stage import Sizes, sizes_of

KEPT = 32  # shapes whose graphs are kept: each holds memory for all that the stage computes


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, ...]  # read by the graph
    outputs: tuple[torch.Tensor, ...]  # written by it

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        for place, tensor in zip(self.inputs, tensors, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)  # the next replay writes here again


class Recorder:
    """Stands for a stage's module on a CUDA device."""

    def __init__(self, call: Callable[..., Any], state: Sequence[torch.Tensor], device: torch.device) -> None:
        """STATE: what CALL changes, other than what it returns."""
        self._call = call
        self._state = state
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: OrderedDict[Sizes, _Recorded] = OrderedDict()

    def knows(self, sizes: Sizes) -> bool:
        """Whether there is a graph for them."""
        return sizes in self._recorded

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        """Raises RuntimeError where the module cannot be recorded."""
        key = sizes_of(tensors, sizes)
        if key not in self._recorded:
            self._recorded[key] = self._record(tensors, sizes)
            if len(self._recorded) > KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return self._recorded[key].run(tensors)

    def _record(self, tensors: Sequence[torch.Tensor], sizes: dict[str, int]) -> _Recorded:
        inputs = tuple(tensor.clone() for tensor in tensors)
        with _kept(self._state):
            for _ in range(2):  # what libraries set up at their first use cannot be recorded
                self._call(*inputs, **sizes)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = self._call(*inputs, **sizes)
        except Exception as e:
            raise RuntimeError(f"it cannot be recorded as a CUDA graph; run it without cuda_graphs: {e}") from e
        return _Recorded(graph, inputs, tuple(outputs))


@contextmanager
def _kept(state: Sequence[torch.Tensor]) -> Iterator[None]:
    """Whatever is run meanwhile, the state is the same afterwards."""
    before = [tensor.clone() for tensor in state]
    yield
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
