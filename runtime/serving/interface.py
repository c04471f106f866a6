"""The inputs and outputs of a served model, read from its manifest, and the requests that may share a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest, ProgramEntry, Tensor
from runtime.serving.arrays import Array


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of an artifact.  Of several programs, the engine finds the one that a request fits."""

    manifest: Manifest

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._all("inputs")

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._all("outputs")

    @property
    def writes_texts(self) -> bool:
        """Whether it continues texts, and takes no plain batches."""
        return self.manifest.generation.page > 0

    def check(self, arrays: Mapping[str, Array]) -> None:
        """Raises InputError for names, dtypes and ranks that no program takes; the rest the engine checks."""
        known = {tensor.name: tensor for tensor in self.inputs}
        takes = ", ".join(f"`{name}`" for name in known)
        for name, array in arrays.items():
            if name not in known:
                raise InputError(f"there is no input `{name}`; the model takes {takes}")
            tensor = known[name]
            if array.dtype != tensor.dtype or len(array.shape) != len(tensor.shape):
                dims = ", ".join(map(str, tensor.shape))
                raise InputError(f"input `{name}`: expected {tensor.dtype}[{dims}], got {array}")
        missing = [name for name in known if name not in arrays]
        if missing and len(self.manifest.programs) == 1:
            raise InputError(f"input `{missing[0]}` is missing; the model takes {takes}")

    def batch_key(self, arrays: Mapping[str, Array]) -> Hashable | None:
        """A key that is equal for requests whose rows may run as one batch; None where they must run alone.

        The compiler proved that the rows of a batch do not look at each other, or the manifest says no such thing.
        """
        if not self._rows_are_independent:
            return None
        rows = {array.shape[0] for array in arrays.values()}
        if len(rows) != 1:
            return None
        return tuple(sorted((name, array.dtype, array.shape[1:]) for name, array in arrays.items()))

    @cached_property
    def _rows_are_independent(self) -> bool:
        """Whether a batch may be split along the first dimension of each input and output."""
        [program, *others] = self.manifest.programs
        return not others and _splits_by_rows(program)

    @property
    def most_rows(self) -> int | None:
        """The largest batch that the model takes; None without a limit."""
        [program, *_] = self.manifest.programs
        symbol = program.symbols.get(program.microbatching.symbol or "")
        return None if symbol is None else symbol.max

    def _all(self, which: str) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        for program in self.manifest.programs:
            for tensor in getattr(program, which):
                found.setdefault(tensor.name, tensor)
        return tuple(found.values())


def _splits_by_rows(program: ProgramEntry) -> bool:
    splits = program.microbatching
    if splits.symbol is None or any(dim != 0 for dim in (*splits.inputs, *splits.outputs)):
        return False
    return all(tensor.shape[0] == splits.symbol for tensor in (*program.inputs, *program.outputs))
