"""Values that an input must hold so often, as a model asserts: places of images among token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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

    @classmethod
    def of_program(cls, program: ProgramEntry) -> tuple[CountCheck, ...]:
        """Raises ManifestError for an input that the program has not."""
        names = [tensor.name for tensor in program.inputs]
        for found in program.counts:
            if found.input not in names:
                raise ManifestError(f"the manifest counts values of `{found.input}`, which is not an input")
        return tuple(
            cls(names.index(c.input), c.input, c.value, SizeExpression.parse(c.count, program.symbols))
            for c in program.counts
        )

    def check(self, tensor: torch.Tensor, sizes: Mapping[str, int]) -> None:
        """Raises InputError unless the tensor holds the value as often as the sizes of the call say.

        A tensor on an accelerator is waited for, as the model itself does.
        """
        found, wanted = int((tensor == self.value).sum()), self.count(sizes)
        if found != wanted:
            of_sizes = f" = {wanted}, as {spelled_sizes(self.count, sizes)}" if self.count.symbols else ""
            times = f"holds the value {self.value} {found} times"
            raise InputError(f"input `{self.name}` {times}; the other inputs ask for {self.count.text}{of_sizes}")
