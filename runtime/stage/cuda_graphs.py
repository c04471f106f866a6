"""A stage as CUDA graphs: recorded at the first batch of a shape, then launched as a whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from runtime.device.copies import start_copy
from runtime.device.kinds import kind_of
from runtime.device.packs import is_as_stored, offsets_in_memory, packs_of, views, whole_memory
from runtime.stage.stage import ShapeKey, StageLaunch, shape_key

KEPT = 64  # graphs that are kept, one for each shape: each holds memory for all of the stage's activations


_copy_all: Any = getattr(torch, "_foreach_copy_")  # noqa: B009 - torch's stubs lack it


@dataclass(frozen=True)
class RecordedGraph:
    """A recorded graph and its fixed buffers."""

    graph: Any  # of the class that the kind of device has
    inputs: tuple[torch.Tensor, ...]  # buffers that the graph reads
    outputs: tuple[torch.Tensor, ...]  # buffers that it writes
    held: list[torch.Tensor | None] = field(default_factory=list)  # of the last launch: what of the host a buffer holds

    def launch(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """See `StageLaunch.launch`."""
        self.held.extend([None] * (len(tensors) - len(self.held)))
        for pack in self._packs:
            pack.fill(tensors, self.held)
        for i, tensor in enumerate(tensors):
            if tensor is not self.held[i]:
                start_copy(self.inputs[i], tensor)
                self.held[i] = tensor if tensor.device.type == "cpu" else None  # one of a device is new each time
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        self.held.clear()
        for alike in self._by_dtype:
            _copy_all([self.inputs[i] for i in alike], [tensors[i] for i in alike])
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)  # the next replay writes here again

    @cached_property
    def _packs(self) -> list[InputPack]:
        return [InputPack.of(self.inputs, pack) for pack in packs_of(self.inputs)]

    @cached_property
    def _by_dtype(self) -> list[list[int]]:
        """The inputs of each dtype, which one kernel copies."""
        dtypes = dict.fromkeys(tensor.dtype for tensor in self.inputs)
        return [[i for i, tensor in enumerate(self.inputs) if tensor.dtype == dtype] for dtype in dtypes]


@dataclass(frozen=True)
class InputPack:
    """Input buffers of a graph that lie in one piece of memory."""

    indices: tuple[int, ...]
    places: list[int]  # their offsets, in bytes
    memory: torch.Tensor

    @classmethod
    def of(cls, inputs: Sequence[torch.Tensor], pack: Sequence[int]) -> InputPack:
        buffers = [inputs[i] for i in pack]
        return cls(tuple(pack), offsets_in_memory(buffers), whole_memory(buffers[0]))

    def fill(self, tensors: Sequence[torch.Tensor], held: list[torch.Tensor | None]) -> None:
        """Copy all tensors of the pack at once, if they lie in the host's memory as the buffers do in theirs.

        `held`: what each input buffer holds, which is updated.
        """
        given = [tensors[i] for i in self.indices]
        if all(tensor is held[i] for i, tensor in zip(self.indices, given, strict=True)):
            return
        first = given[0].untyped_storage()
        if any(t.device.type != "cpu" or t.untyped_storage().data_ptr() != first.data_ptr() for t in given):
            return
        if not all(map(is_as_stored, given)):  # graphs are found by sizes alone
            return
        if first.nbytes() == self.memory.nbytes and offsets_in_memory(given) == self.places:
            start_copy(self.memory, whole_memory(given[0]))
            for i, tensor in zip(self.indices, given, strict=True):
                held[i] = tensor


@dataclass(frozen=True)
class GraphMemory:
    """Memory that all graphs of a stage share, as no two of them run at once, and the stream that records them."""

    device: torch.device
    pool: Any
    stream: Any

    @classmethod
    def on(cls, device: torch.device) -> GraphMemory:
        module = torch.get_device_module(device)
        return cls(device, module.graph_pool_handle(), module.Stream(device))

    @contextmanager
    def recording(self) -> Iterator[Any]:
        """A block whose kernels become the graph.  Other threads may use the device meanwhile."""
        module = torch.get_device_module(self.device)
        graph = getattr(module, kind_of(self.device).graph)()
        with module.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            yield graph


class GraphedStage:
    """A stage's module in one program on a device that has graphs, run by them."""

    def __init__(
        self,
        call: Callable[..., Any],
        state: Sequence[torch.Tensor],
        memory: GraphMemory,
        addresses: Collection[int] = (),
    ) -> None:
        """`state`: the buffers that `call` changes, and that must not change when it runs to be recorded.

        `addresses`: the inputs that say where in pools it writes; with zeros, which belong to nobody, it is recorded.
        """
        self._call = call
        self._addresses = addresses
        self._state = state
        self._memory = memory
        self._graphs: OrderedDict[ShapeKey, RecordedGraph] = OrderedDict()

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether there is a graph for these shapes."""
        return key in self._graphs

    def graph_of(self, key: ShapeKey) -> StageLaunch | None:
        """The graph for these shapes, which counts as used, if there is one."""
        if key not in self._graphs:
            return None
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def forget(self, key: ShapeKey) -> None:
        """Drop the graph for these shapes."""
        del self._graphs[key]

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        """Raises RuntimeError if the module cannot be recorded."""
        key = shape_key(tensors, sizes)
        if key not in self._graphs:
            self._graphs[key] = self._record(tensors, sizes)
            if len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key].run(tensors)

    def _record(self, tensors: Sequence[torch.Tensor], sizes: dict[str, int]) -> RecordedGraph:
        inputs = buffers_for(tensors)
        for i in self._addresses:
            inputs[i].zero_()
        with _kept(self._state):
            for _ in range(2):  # set-up of libraries at their first use cannot be recorded
                self._call(*inputs, **sizes)
        try:
            with self._memory.recording() as graph:
                outputs = self._call(*inputs, **sizes)
        except Exception as e:
            raise RuntimeError(f"it cannot be recorded as a CUDA graph; run it without cuda_graphs: {e}") from e
        return RecordedGraph(graph, inputs, tuple(outputs))


def buffers_for(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Copies of tensors: of those that lie in one piece of memory, in another one."""
    made: dict[int, torch.Tensor] = {}
    for pack in packs_of(tensors):
        alike = [tensors[i] for i in pack]
        made |= zip(pack, views(whole_memory(alike[0]).clone(), alike, offsets_in_memory(alike)), strict=True)
    return tuple(made[i] if i in made else tensor.clone() for i, tensor in enumerate(tensors))


@contextmanager
def _kept(state: Sequence[torch.Tensor]) -> Iterator[None]:
    """A block after which the state is what it was before."""
    before = [tensor.clone() for tensor in state]
    yield
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
