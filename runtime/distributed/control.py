"""Control messages: what rank 0 has all stages do next, sent to every process ahead of the tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from runtime.engine.message import Reset, SetTrace, Values
from runtime.trace.traces import Trace

Control = Values | Reset | SetTrace  # Values without tensors: the program and the sizes of the next batch
_VALUES, _RESET, _TRACE, _END_TRACE = range(4)


@dataclass(frozen=True)
class ControlCodec:
    """Control messages as vectors of 64-bit integers: the kind, the program, then the value of each of its symbols."""

    symbols: tuple[tuple[str, ...], ...]  # of each program
    new_trace: Callable[[], Trace]  # each process has a trace of its own; rank 0 gets them all at the end

    def blank(self) -> torch.Tensor:
        """A vector to receive a message in."""
        return torch.zeros(2 + max(map(len, self.symbols)), dtype=torch.int64)

    def encode(self, control: Control) -> torch.Tensor:
        """int64[2 + symbols]."""
        vector = self.blank()
        match control:
            case Values(sizes=sizes, program=program):
                names = self.symbols[program]
                vector[1] = program
                vector[2 : 2 + len(names)] = torch.tensor([sizes[name] for name in names], dtype=torch.int64)
            case Reset():
                vector[0] = _RESET
            case SetTrace(trace):
                vector[0] = _END_TRACE if trace is None else _TRACE
        return vector

    def decode(self, vector: torch.Tensor) -> Control:
        """The message of a vector that `encode` made in another process, with a new trace if it starts one."""
        kind, program, *sizes = vector.tolist()
        if kind == _VALUES:
            return Values((), dict(zip(self.symbols[program], sizes, strict=False)), program=program)
        if kind == _RESET:
            return Reset()
        return SetTrace(self.new_trace() if kind == _TRACE else None)
