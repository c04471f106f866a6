"""Runs of a value in the texts of an input, as of places of images, that the rows of a second input describe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod

import torch

from runtime.errors import InputError, ManifestError
from runtime.manifest.manifest import DescribedRuns, ProgramEntry


@dataclass(frozen=True)
class RunCheck:
    """The lengths of the runs of a value in an input `[texts, seq]`, text by text, beside what describes them."""

    said: DescribedRuns
    slot: int  # of the input
    mask: int | None  # the slot of the input that says which elements count
    rows: int  # the slot of the input that describes them

    @classmethod
    def of_program(cls, program: ProgramEntry) -> tuple[RunCheck, ...]:
        """Raises ManifestError for an input that the program has not, or that has other rows."""
        by_name = {tensor.name: (slot, list(tensor.shape)) for slot, tensor in enumerate(program.inputs)}
        for found in program.described:
            (_, values), (_, rows) = by_name.get(found.input, (0, [])), by_name.get(found.rows, (0, []))
            _, mask = by_name.get(found.mask, (0, [])) if found.mask else (0, values)
            if len(values) != 2 or mask != values or rows[1:] != [len(found.divisors)] or 0 in found.divisors:
                described = f"runs in `{found.input}` by `{found.rows}`"
                raise ManifestError(f"the manifest describes {described}, which are no such inputs")
        return tuple(
            cls(d, by_name[d.input][0], by_name[d.mask][0] if d.mask else None, by_name[d.rows][0])
            for d in program.described
        )

    def check(self, tensors: Mapping[int, torch.Tensor], sizes: Mapping[str, int]) -> None:
        """Raises InputError unless there is a run for each row, as long as this says.

        A tensor on an accelerator is waited for, as the model itself does.
        """
        each = prod(self.said.divisors)
        wanted = [prod(row) // each for row in tensors[self.rows].tolist()]
        mask = None if self.mask is None else tensors[self.mask]
        found = list(_runs(tensors[self.slot], self.said.value, mask))
        if found != wanted:
            raise InputError(
                f"input `{self.said.input}` has runs of {self.said.value} that are {found} long; "
                f"`{self.said.rows}` describes {wanted}"
            )


def _runs(values: torch.Tensor, value: int, mask: torch.Tensor | None) -> Iterator[int]:
    """The length of each run of the value in what the mask leaves of each text."""
    for i, text in enumerate(values == value):
        kept = text if mask is None else text[mask[i].bool()]
        yield from (sum(1 for _ in run) for is_value, run in groupby(kept.tolist()) if is_value)
