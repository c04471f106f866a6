"""A batch -> microbatches, and their outputs -> those of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from runtime.call.sizes import SizeConstraints
from runtime.engine.message import Values
from runtime.errors import InputError
from runtime.manifest.manifest import ProgramEntry


@dataclass(frozen=True)
class BatchSplit:
    """The size along which batches are split, and its dimension in each tensor."""

    symbol: str
    inputs: tuple[int | None, ...]  # None: all microbatches take the whole tensor
    outputs: tuple[int | None, ...]  # None: all microbatches return the same tensor
    sizes: SizeConstraints

    @classmethod
    def of_program(cls, program: ProgramEntry) -> BatchSplit:
        """The split that the compiler proved to be right.  Raises InputError with its reason where there is none."""
        found = program.microbatching
        if found.symbol is None:
            raise InputError(f"a batch cannot be split: {found.reason}")
        return cls(found.symbol, found.inputs, found.outputs, SizeConstraints.parse(program))

    def parts(self, batch: Values, count: int) -> list[Values]:
        """`count` microbatches, or one a sample if those are fewer; sizes differ by 1 at most.  Raises InputError."""
        whole = batch.sizes[self.symbol]
        count = min(count, whole) or 1
        ends = [whole * i // count for i in range(count + 1)]
        return [self._part(batch, start, end - start) for start, end in pairwise(ends)]

    def join(self, parts: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        """The outputs of the batch from those of its microbatches, in order."""
        if len(parts) == 1:
            return tuple(parts[0])
        columns = zip(*parts, strict=True)
        joins = zip(columns, self.outputs, strict=True)
        return tuple(tensors[0] if d is None else torch.cat(tensors, d) for tensors, d in joins)

    def _part(self, batch: Values, start: int, length: int) -> Values:
        sizes = {**batch.sizes, self.symbol: length}
        self.sizes.check(sizes, "a microbatch")
        tensors = zip(batch.tensors, self.inputs, strict=True)
        return replace(
            batch, tensors=tuple(t if d is None else t.narrow(d, start, length) for t, d in tensors), sizes=sizes
        )
