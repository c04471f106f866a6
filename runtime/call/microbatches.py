"""A batch -> microbatches, and their outputs -> those of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from runtime.call.expressions import SizeExpression
from runtime.call.sizes import SizeConstraints
from runtime.engine.message import Values
from runtime.errors import InputError
from runtime.manifest import Manifest, Tensor


@dataclass(frozen=True)
class BatchSplit:
    """The size along which batches are split, and its dimension in each tensor."""

    symbol: str
    inputs: tuple[int | None, ...]  # None: all microbatches take the whole tensor
    outputs: tuple[int, ...]
    sizes: SizeConstraints

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> BatchSplit:
        """Split along the first dimension of the first input whose first dimension may change.

        Raises InputError if microbatches are not independent, or if outputs cannot be joined from theirs.
        """
        for i, stage in enumerate(manifest.stages):
            if stage.state:
                raise InputError(
                    f"a batch cannot be split: stage {i} keeps state from batch to batch, {stage.state[0]}"
                )
        symbol = next((t.shape[0] for t in manifest.inputs if t.shape and t.shape[0] in manifest.symbols), None)
        if not isinstance(symbol, str):
            raise InputError("a batch cannot be split: no input may change in its first size; compile the model so")
        inputs = tuple(_dimension(tensor, symbol, manifest) for tensor in manifest.inputs)
        outputs = [_dimension(tensor, symbol, manifest) for tensor in manifest.outputs]
        for tensor, dimension in zip(manifest.outputs, outputs, strict=True):
            if dimension is None:
                raise InputError(f"a batch cannot be split: `{tensor.name}`, an output, has no dimension `{symbol}`")
        return cls(symbol, inputs, tuple(d for d in outputs if d is not None), SizeConstraints.parse(manifest))

    def parts(self, batch: Values, count: int) -> list[Values]:
        """`count` microbatches, or one a sample if those are fewer; sizes differ by 1 at most.  Raises InputError."""
        if count < 1:
            raise InputError(f"microbatches is {count}; a batch is split into at least one")
        whole = batch.sizes[self.symbol]
        count = min(count, whole) or 1
        ends = [whole * i // count for i in range(count + 1)]
        return [self._part(batch, start, end - start) for start, end in pairwise(ends)]

    def join(self, parts: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        """The outputs of the batch from those of its microbatches, in order."""
        if len(parts) == 1:
            return tuple(parts[0])
        columns = zip(*parts, strict=True)
        return tuple(torch.cat(tensors, d) for tensors, d in zip(columns, self.outputs, strict=True))

    def _part(self, batch: Values, start: int, length: int) -> Values:
        sizes = {**batch.sizes, self.symbol: length}
        self.sizes.check(sizes, "a microbatch")
        tensors = zip(batch.tensors, self.inputs, strict=True)
        return replace(
            batch, tensors=tuple(t if d is None else t.narrow(d, start, length) for t, d in tensors), sizes=sizes
        )


def _dimension(tensor: Tensor, symbol: str, manifest: Manifest) -> int | None:
    """The dimension of a tensor that is the symbol.  Raises InputError if others depend on the symbol, too."""
    shape = [str(size) for size in tensor.shape]
    found = [i for i, text in enumerate(shape) if symbol in SizeExpression.parse(text, manifest.symbols).symbols]
    if not found:
        return None
    if len(found) > 1 or shape[found[0]] != symbol:
        raise InputError(
            f"a batch cannot be split: `{tensor.name}` is [{', '.join(shape)}], in which `{symbol}` is mixed"
        )
    return found[0]
