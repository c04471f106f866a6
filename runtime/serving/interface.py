"""The inputs and outputs of a served model, read from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runtime.call.outputs.output_parts import parse_parts
from runtime.errors import InputError
from runtime.manifest.manifest import ADAPTER, Manifest, Tensor
from runtime.serving.arrays import REAL_PARTS, Array, in_complex_numbers
from runtime.serving.batching import Batching


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

    def given(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The inputs of a request, with complex numbers of pairs of real ones.

        Where it chooses no adapter of those that there are, none for each of its rows.
        """
        dtypes = {tensor.name: tensor.dtype for tensor in self.inputs if tensor.dtype in REAL_PARTS}
        arrays = {name: in_complex_numbers(array, dtypes.get(name, "")) for name, array in arrays.items()}
        rows = next((array.shape[0] for array in arrays.values() if array.shape), 1)
        if not self.manifest.adapters or ADAPTER in arrays:
            return arrays
        return {**arrays, ADAPTER: Array("int64", (rows,), bytes(8 * rows))}

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

    def parts(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The outputs that a request asks for, and parts of them; none where these are all outputs, whole.

        Raises InputError for what is no part of an output of any program.
        """
        parse_parts(asked, {tensor.name: tensor.shape for tensor in self.outputs})
        return () if {*asked} == {tensor.name for tensor in self.outputs} else tuple(dict.fromkeys(asked))

    @cached_property
    def batching(self) -> Batching:
        """The requests that may run as one batch."""
        return Batching.of(self.manifest.programs)

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
