"""What rank 0 has all stages do next, in the order in which it is done, as every process learns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from runtime.engine.message import Reset, Values, Watch
from runtime.trace.recording import Trace

Order = Values | Reset | Watch  # the values without tensors: the sizes of a batch, known ahead of them
_VALUES, _RESET, _WATCH, _UNWATCH = range(4)


@dataclass(frozen=True)
class Orders:
    """Orders as vectors of 64-bit integers: what it is, then the value of each symbol."""

    symbols: Sequence[str]
    new_trace: Callable[[], Trace]  # a trace is recorded in each process, and brought together when it ends

    def blank(self) -> torch.Tensor:
        return torch.zeros(1 + len(self.symbols), dtype=torch.int64)

    def encode(self, order: Order) -> torch.Tensor:
        vector = self.blank()
        match order:
            case Values(_, sizes):
                vector[1:] = torch.tensor([sizes[name] for name in self.symbols], dtype=torch.int64)
            case Reset():
                vector[0] = _RESET
            case Watch(trace):
                vector[0] = _UNWATCH if trace is None else _WATCH
        return vector

    def decode(self, vector: torch.Tensor) -> Order:
        kind, *sizes = vector.tolist()
        match kind:
            case 0:
                return Values((), dict(zip(self.symbols, sizes, strict=True)))
            case 1:
                return Reset()
            case _:
                return Watch(self.new_trace() if kind == _WATCH else None)
