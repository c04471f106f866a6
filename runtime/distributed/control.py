"""Control messages: what rank 0 has all stages do next, sent to every process ahead of the tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from runtime.engine.message import Reset, SetTrace, Values
from runtime.trace.traces import Trace

Control = Values | Reset | SetTrace  # Values without tensors: the sizes of the next batch
_VALUES, _RESET, _TRACE, _END_TRACE = range(4)


@dataclass(frozen=True)
class ControlCodec:
    """Control messages as vectors of 64-bit integers: the kind, then the value of each symbol."""

    symbols: Sequence[str]
    new_trace: Callable[[], Trace]  # each process has a trace of its own; rank 0 gets them all at the end

    def blank(self) -> torch.Tensor:
        """A vector to receive a message in."""
        return torch.zeros(1 + len(self.symbols), dtype=torch.int64)

    def encode(self, control: Control) -> torch.Tensor:
        """int64[1 + symbols]."""
        vector = self.blank()
        match control:
            case Values(_, sizes):
                vector[1:] = torch.tensor([sizes[name] for name in self.symbols], dtype=torch.int64)
            case Reset():
                vector[0] = _RESET
            case SetTrace(trace):
                vector[0] = _END_TRACE if trace is None else _TRACE
        return vector

    def decode(self, vector: torch.Tensor) -> Control:
        """The message of a vector that `encode` made in another process, with a new trace if it starts one."""
        kind, *sizes = vector.tolist()
        if kind == _VALUES:
            return Values((), dict(zip(self.symbols, sizes, strict=True)))
        if kind == _RESET:
            return Reset()
        return SetTrace(self.new_trace() if kind == _TRACE else None)
