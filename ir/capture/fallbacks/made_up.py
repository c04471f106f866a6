"""Made-up values for a module's tensor arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn.utils.rnn import PackedSequence

from ir.errors import CaptureError
from ir.objects.signature import Slot, Tree


def made_up(
    arguments: Tree, types: Sequence[tuple[list[int], torch.dtype]], seed: int, least: int
) -> list[torch.Tensor]:
    """Random values for the tensors of `arguments`, of these shapes and dtypes: integers are `least` and one more.

    Those of a PackedSequence fit together.  Raises CaptureError where there is none of the sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    made = [_values(shape, dtype, least, generator) for shape, dtype in types]
    for data, batch_sizes, order, inverse in _packed(arguments):
        batch = None if order is None else made[order].shape[0]
        made[batch_sizes] = _batch_sizes(made[data].shape[0], made[batch_sizes].shape[0], batch, seed)
        if order is not None and inverse is not None:
            made[order] = torch.randperm(len(made[order]), generator=generator)
            made[inverse] = made[order].argsort()
    return made


def _values(shape: list[int], dtype: torch.dtype, least: int, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers; small integers, which may be indices or lengths."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(least, least + 2, shape, generator=generator).to(dtype)


def _packed(tree: Tree) -> Iterator[tuple[int, int, int | None, int | None]]:
    """The slots of each PackedSequence: data, batch sizes, the order of the sequences and its inverse."""
    match tree.leaves:
        case (Slot(data), Slot(batch_sizes), order, inverse) if tree.spec.context is PackedSequence:
            slots = [x.index if isinstance(x, Slot) else None for x in (order, inverse)]
            yield data, batch_sizes, slots[0], slots[1]
            return
    for part in tree.parts:
        yield from _packed(part)


def holds_sorted(arguments: Tree) -> bool:
    """Whether a PackedSequence of sorted sequences is among arguments: its tensors do not tell how many there are."""
    return any(order is None for _, _, order, _ in _packed(arguments))


def _batch_sizes(rows: int, steps: int, batch: int | None, seed: int) -> torch.Tensor:
    """The number of `batch` sequences that go on at each step, never more than before, with `rows` in all."""
    least = -(-rows // steps)
    first = batch or min(least + seed % 2, rows - steps + 1)
    left = rows - first - (steps - 1)
    if left < 0 or rows > first * steps:
        raise CaptureError(f"there are no {first} sequences of at most {steps} steps with {rows} in all")
    sizes = [first]
    for _ in range(steps - 1):
        more = min(left, first - 1)
        sizes.append(1 + more)
        left -= more
    return torch.tensor(sizes)
