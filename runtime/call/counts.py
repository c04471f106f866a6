"""Values that inputs must hold: places of images among token ids, as often as a model asserts, and grids of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from runtime.call.expressions import SizeExpression
from runtime.call.sizes import spelled_sizes
from runtime.errors import InputError, ManifestError
from runtime.manifest.manifest import ProgramEntry


@dataclass(frozen=True)
class CountCheck:
    """The number of elements of an input that must have a value."""

    slot: int  # of the input
    name: str
    value: int
    count: SizeExpression
    images: str = ""  # the input `[texts, images, …]` for whose images that are not zeros there are so many each
    of_images: int = 0  # the slot of that

    @classmethod
    def of_program(cls, program: ProgramEntry) -> tuple[CountCheck, ...]:
        """Raises ManifestError for an input that the program has not."""
        names = [tensor.name for tensor in program.inputs]
        for found in program.counts:
            if not {found.input, found.images or found.input} <= set(names):
                raise ManifestError(f"the manifest counts values of `{found.input}`, which is not an input")
        return tuple(
            cls(
                names.index(c.input),
                c.input,
                c.value,
                SizeExpression.parse(c.count, program.symbols),
                c.images,
                names.index(c.images) if c.images else 0,
            )
            for c in program.counts
        )

    def check(self, tensors: Mapping[int, torch.Tensor], sizes: Mapping[str, int]) -> None:
        """Raises InputError unless the input holds the value as often as the sizes of the call say.

        A tensor on an accelerator is waited for, as the model itself does.
        """
        found = int((tensors[self.slot] == self.value).sum())
        if self.images:
            real = int(real_images(tensors[self.of_images]).sum())
            if found != real * (each := self.count(sizes)):
                times = f"holds the value {self.value} {found} times"
                said = f"`{self.images}` has {real} that are not all zeros, in {each} places each"
                raise InputError(f"input `{self.name}` {times}; of its images {said}")
            return
        if found != self.count(sizes):
            times = f"holds the value {self.value} {found} times"
            raise InputError(f"input `{self.name}` {times}; the other inputs ask for {_wanted(self.count, sizes)}")


def real_images(images: torch.Tensor) -> torch.Tensor:
    """`bool[texts, images]`: whether images `[texts, images, …]` are no padding, as they are not all zeros."""
    return (images != 0).flatten(2).any(-1)


@dataclass(frozen=True)
class ProductCheck:
    """The sum of the products of each row of an input `[rows, numbers]`, and what these numbers are multiples of."""

    slot: int  # of the input
    name: str
    multiples: tuple[int, ...]
    count: SizeExpression

    @classmethod
    def of_program(cls, program: ProgramEntry) -> tuple[ProductCheck, ...]:
        """Raises ManifestError for an input that the program has not, or that has other rows."""
        by_name = {tensor.name: (slot, tensor) for slot, tensor in enumerate(program.inputs)}
        for found in program.row_products:
            _, tensor = by_name.get(found.input, (0, None))
            if tensor is None or list(tensor.shape[1:]) != [len(found.multiples)] or 0 in found.multiples:
                numbers = f"rows of {len(found.multiples)} numbers of `{found.input}`"
                raise ManifestError(f"the manifest multiplies {numbers}, which is no such input")
        return tuple(
            cls(by_name[p.input][0], p.input, tuple(p.multiples), SizeExpression.parse(p.count, program.symbols))
            for p in program.row_products
        )

    def check(self, tensors: Mapping[int, torch.Tensor], sizes: Mapping[str, int]) -> None:
        """Raises InputError unless the rows describe what the sizes of the call say.

        A tensor on an accelerator is waited for, as the model itself does.
        """
        rows = tensors[self.slot].tolist()
        for row in rows:
            if any(number < 1 or number % of for number, of in zip(row, self.multiples, strict=True)):
                raise InputError(f"input `{self.name}` holds {row}; expected multiples of {list(self.multiples)}")
        if (found := sum(map(prod, rows))) != self.count(sizes):
            said = f"describes {found} rows in all"
            raise InputError(f"input `{self.name}` {said}; the other inputs have {_wanted(self.count, sizes)}")


def _wanted(count: SizeExpression, sizes: Mapping[str, int]) -> str:
    spelled = f" = {count(sizes)}" if count.symbols else ""
    return count.text + spelled + ("" if count.text in sizes or not spelled else f", as {spelled_sizes(count, sizes)}")
