"""A stage as CUDA graphs: recorded at the first batch of a shape, then launched as a whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from runtime.device.copies import start_copy
from runtime.device.kinds import kind_of
from runtime.device.packs import Pack, offsets_in_memory, packs_of, views, whole_memory
from runtime.stage.stage import ShapeKey, StageLaunch, shape_key

KEPT = 64  # graphs that are kept, one for each shape: each holds memory for all of the stage's activations


class NotYet(Exception):
    """Raised for a graph that would be without kernels: they are compiled meanwhile."""


_copy_all: Any = getattr(torch, "_foreach_copy_")  # noqa: B009 - torch's stubs lack it


@dataclass
class RecordedGraph:
    """A recorded graph and its fixed buffers."""

    graph: Any  # of the class that the kind of device has
    inputs: tuple[torch.Tensor, ...]  # buffers that the graph reads
    outputs: tuple[torch.Tensor, ...]  # buffers that it writes
    _held: list[torch.Tensor | None] = field(default_factory=list)  # what of the host a buffer holds
    _pack: Pack | None = None  # what the buffers hold that lie together

    def launch(self, tensors: Sequence[torch.Tensor], pack: Pack | None = None) -> tuple[torch.Tensor, ...]:
        """See `StageLaunch.launch`."""
        for i in self._filled_apart(tensors, pack):
            if (tensor := tensors[i]) is not self._held[i]:
                start_copy(self.inputs[i], tensor)
                self._held[i] = tensor if tensor.device.type == "cpu" else None  # one of a device is new each time
        self.graph.replay()
        return tuple([output.clone() for output in self.outputs])

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """See `StageLaunch.run`."""
        self._forget()
        for alike in self._by_dtype:
            _copy_all([self.inputs[i] for i in alike], [tensors[i] for i in alike])
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)  # the next replay writes here again

    def _filled_apart(self, tensors: Sequence[torch.Tensor], pack: Pack | None) -> Sequence[int]:
        """The inputs that are copied tensor by tensor; all others are in their buffers by one copy of the pack."""
        together = self._together
        apart = None if pack is None or together is None else together.apart(tensors, pack)
        if pack is None or together is None or apart is None:
            if self._pack is not None or not self._held:
                self._forget()
            return range(len(tensors))
        if self._pack is not pack:
            if self._pack is None:
                self._forget()
            start_copy(together.memory, pack.memory, pinned=True)
            self._pack = pack
            for i in together.places:
                self._held[i] = None
        return apart

    def _forget(self) -> None:
        """Take the buffers to hold nothing that is known."""
        self._pack, self._held = None, [None] * len(self.inputs)

    @cached_property
    def _together(self) -> InputPack | None:
        """Those of the buffers that lie in one piece of memory."""
        packs = packs_of(self.inputs)
        return InputPack.of(self.inputs, packs[0]) if len(packs) == 1 else None

    @cached_property
    def _by_dtype(self) -> list[list[int]]:
        """The inputs of each dtype, which one kernel copies."""
        dtypes = dict.fromkeys(tensor.dtype for tensor in self.inputs)
        return [[i for i, tensor in enumerate(self.inputs) if tensor.dtype == dtype] for dtype in dtypes]


@dataclass(frozen=True)
class InputPack:
    """Input buffers of a graph that lie in one piece of memory."""

    places: Mapping[int, int]  # their offsets in it, in bytes, by their indices
    memory: torch.Tensor
    _apart: dict[str, tuple[int, ...] | None] = field(default_factory=dict)  # by layout: see `apart`

    @classmethod
    def of(cls, inputs: Sequence[torch.Tensor], pack: Sequence[int]) -> InputPack:
        buffers = [inputs[i] for i in pack]
        return cls(dict(zip(pack, offsets_in_memory(buffers), strict=True)), whole_memory(buffers[0]))

    def apart(self, tensors: Sequence[torch.Tensor], pack: Pack) -> tuple[int, ...] | None:
        """The indices of the graph's inputs that a copy of the pack to the memory does not bring.

        None where others lie in the pack otherwise than the buffers do in their memory.  Inputs of a graph have the
        same names in all batches, so the layout of the pack tells.
        """
        if pack.layout not in self._apart:
            mine = {id(tensor) for tensor in pack.tensors.values()}
            found = {i: int(t.storage_offset()) * t.itemsize for i, t in enumerate(tensors) if id(t) in mine}
            brought = {i: place for i, place in found.items() if self.places.get(i) == place}
            fits = pack.memory.nbytes == self.memory.nbytes and len(brought) == len(found) > 0
            apart = tuple(i for i in range(len(tensors)) if i not in brought)
            self._apart[pack.layout] = apart if fits else None
        return self._apart[pack.layout]


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
        has_kernels: Callable[[], bool] = lambda: True,
    ) -> None:
        """`state`: the buffers that `call` changes, and that must not change when it runs to be recorded.

        `addresses`: the inputs that say where in pools it writes; with zeros, which belong to nobody, it is recorded.
        `has_kernels`: whether the kernels are there that `call` runs from then on; it may wait for them.
        """
        self._call = call
        self._has_kernels = has_kernels
        self._addresses = addresses
        self._state = state
        self._memory = memory
        self._graphs: OrderedDict[ShapeKey, RecordedGraph] = OrderedDict()

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether there is a graph for these shapes."""
        return key in self._graphs

    def graph_of(self, key: ShapeKey) -> StageLaunch | None:
        """The graph for these shapes, which counts as used, if there is one."""
        if (graph := self._graphs.get(key)) is not None:
            self._graphs.move_to_end(key)
        return graph

    def forget(self, key: ShapeKey) -> None:
        """Drop the graph for these shapes."""
        del self._graphs[key]

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]:
        """Raises RuntimeError if the module cannot be recorded, NotYet if it can be later."""
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
                if not self._has_kernels():
                    raise NotYet
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
    try:
        yield
    finally:
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
