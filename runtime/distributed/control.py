"""Control messages: what rank 0 has all stages do next, sent to every process ahead of the tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from runtime.engine.boxes import Boxes
from runtime.engine.message import Control, FinishKernels, Reset, SetTrace, Values
from runtime.trace.traces import Trace

_VALUES, _RESET, _TRACE, _END_TRACE, _FINISH_KERNELS = range(5)


@dataclass(frozen=True)
class ControlCodec:
    """Control messages as vectors of 64-bit integers, of a batch the program and the sizes.

    [kind, program, length of the next vector, value of each symbol of the program …]
    [index of an output, number of its boxes, their dimensions, start, stop and step of each dimension …] of each output

    The second vector is sent only where the caller does not want all outputs whole.
    """

    symbols: tuple[tuple[str, ...], ...]  # of each program
    new_trace: Callable[[], Trace]  # each process has a trace of its own; rank 0 gets them all at the end

    def blank(self) -> torch.Tensor:
        """A vector to receive a message in."""
        return torch.zeros(3 + max(map(len, self.symbols)), dtype=torch.int64)

    def encode(self, control: Control) -> list[torch.Tensor]:
        """int64[3 + symbols], and the second vector where there is one."""
        vector, boxes = self.blank(), list[int]()
        match control:
            case Values(sizes=sizes, program=program, wanted=wanted):
                names = self.symbols[program]
                boxes = [number for output, of_it in wanted.items() for number in _encoded(output, of_it)]
                vector[1], vector[2] = program, len(boxes)
                vector[3 : 3 + len(names)] = torch.tensor([sizes[name] for name in names], dtype=torch.int64)
            case Reset():
                vector[0] = _RESET
            case FinishKernels():
                vector[0] = _FINISH_KERNELS
            case SetTrace(trace):
                vector[0] = _END_TRACE if trace is None else _TRACE
        return [vector, torch.tensor(boxes)] if boxes else [vector]

    def second(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The vectors to receive after a first one: one or none."""
        return [torch.empty(length, dtype=torch.int64)] if (length := int(vector[2])) else []

    def decode(self, vector: torch.Tensor, *second: torch.Tensor) -> Control:
        """The message of vectors that `encode` made in another process, with a new trace if it starts one."""
        kind, program, _, *sizes = vector.tolist()
        if kind == _VALUES:
            wanted = dict(_decoded([number for boxes in second for number in boxes.tolist()]))
            return Values((), dict(zip(self.symbols[program], sizes, strict=False)), program=program, wanted=wanted)
        if kind == _RESET:
            return Reset()
        if kind == _FINISH_KERNELS:
            return FinishKernels()
        return SetTrace(self.new_trace() if kind == _TRACE else None)


def _encoded(output: int, boxes: Boxes) -> list[int]:
    dims = len(boxes[0]) if boxes else 0
    return [output, len(boxes), dims, *(number for box in boxes for bounds in box for number in bounds)]


def _decoded(numbers: Sequence[int]) -> Iterator[tuple[int, Boxes]]:
    left = iter(numbers)
    for output in left:
        count, dims = next(left), next(left)
        yield output, tuple(tuple((next(left), next(left), next(left)) for _ in range(dims)) for _ in range(count))
