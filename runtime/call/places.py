"""Places of a value in the texts of an input, as of images, that the rows of a second input describe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod

import torch

from runtime.call.expressions import SizeExpression
from runtime.errors import InputError, ManifestError
from runtime.manifest.manifest import DescribedPlaces, ProgramEntry


@dataclass(frozen=True)
class PlacesCheck:
    """The places of a value in an input `[texts, seq]`, text by text, beside what describes them."""

    said: DescribedPlaces
    slot: int  # of the input
    mask: int | None  # the slot of the input that says which elements count
    rows: int  # the slot of the input that describes them
    most: tuple[SizeExpression, ...]

    @classmethod
    def of_program(cls, program: ProgramEntry) -> tuple[PlacesCheck, ...]:
        """Raises ManifestError for an input that the program has not, or that has other rows."""
        by_name = {tensor.name: (slot, list(tensor.shape)) for slot, tensor in enumerate(program.inputs)}
        for found in program.described:
            (_, values), (_, rows) = by_name.get(found.input, (0, [])), by_name.get(found.rows, (0, []))
            _, mask = by_name.get(found.mask, (0, [])) if found.mask else (0, values)
            if len(values) != 2 or mask != values or rows[1:] != [len(found.divisors)] or 0 in found.divisors:
                described = f"places in `{found.input}` by `{found.rows}`"
                raise ManifestError(f"the manifest describes {described}, which are no such inputs")
        return tuple(
            cls(
                d,
                by_name[d.input][0],
                by_name[d.mask][0] if d.mask else None,
                by_name[d.rows][0],
                tuple(SizeExpression.parse(size, program.symbols) for size in d.most),
            )
            for d in program.described
        )

    def check(self, tensors: Mapping[int, torch.Tensor], sizes: Mapping[str, int]) -> None:
        """Raises InputError unless there are as many places as each row says, in a run or, at least, in all.

        A tensor on an accelerator is waited for, as the model itself does.
        """
        said, described = self.said, tensors[self.rows].tolist()
        most = [size(sizes) for size in self.most] or [None] * len(said.divisors)
        for row in described:
            if any(
                n < of or (limit is not None and n > limit)
                for n, of, limit in zip(row, said.divisors, most, strict=True)
            ):
                within = f" and at most {most}" if self.most else ""
                raise InputError(f"input `{said.rows}` holds {row}; expected at least {list(said.divisors)}{within}")
        wanted = [prod(n // of for n, of in zip(row, said.divisors, strict=True)) for row in described]
        found = list(_runs(tensors[self.slot], said.value, None if self.mask is None else tensors[self.mask]))
        if said.runs and found != wanted:
            raise InputError(
                f"input `{said.input}` has runs of {said.value} that are {found} long; `{said.rows}` describes {wanted}"
            )
        if sum(found) != sum(wanted):
            raise InputError(
                f"input `{said.input}` holds the value {said.value} {sum(found)} times; "
                f"`{said.rows}` describes {' + '.join(map(str, wanted))}"
            )


def _runs(values: torch.Tensor, value: int, mask: torch.Tensor | None) -> Iterator[int]:
    """The length of each run of the value in what the mask leaves of each text."""
    for i, text in enumerate(values == value):
        kept = text if mask is None else text[mask[i].bool()]
        yield from (sum(1 for _ in run) for is_value, run in groupby(kept.tolist()) if is_value)
