"""The programs of an artifact: which of them a call runs, and how it enters and leaves that one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from runtime.call.adapter_rows import AdapterNames
from runtime.call.input_type import InputType
from runtime.call.inputs import Inputs
from runtime.call.microbatches import BatchSplit
from runtime.call.outputs.selection import OutputSelection
from runtime.call.trees.tree import parse
from runtime.call.trees.tree_nodes import TreeNode
from runtime.device.streams import made_by_now
from runtime.engine.message import Values
from runtime.errors import InputError, demand
from runtime.manifest.manifest import Manifest, ProgramEntry
from runtime.options import is_count

Build = Callable[[Sequence[torch.Tensor]], Any]  # all outputs -> the caller's result


@dataclass(frozen=True)
class BatchParts:
    """The microbatches of a batch, and how their outputs become its result."""

    parts: Sequence[Values]
    result: Callable[[Sequence[Sequence[torch.Tensor]]], Any]


@dataclass(frozen=True)
class ProgramCalls:
    """The conversion of calls of one program to batches, and of its outputs to their results."""

    entry: ProgramEntry
    inputs: Inputs
    returns: TreeNode

    @classmethod
    def parse(cls, entry: ProgramEntry) -> ProgramCalls:
        """Raises ManifestError if the tables of the program contradict each other."""
        returns = parse(entry.signature.returns, entry.symbols, len(entry.outputs))
        return cls(entry, Inputs.parse(entry), returns)

    @cached_property
    def split(self) -> BatchSplit:
        """Raises InputError where a batch cannot be split."""
        return BatchSplit.of_program(self.entry)

    @cached_property
    def outputs(self) -> tuple[InputType, ...]:
        """The dtypes and shapes of the outputs."""
        return tuple(InputType.parse(tensor, self.entry.symbols) for tensor in self.entry.outputs)

    def takes(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether a call with these tensors, by their names in the manifest, fits the program."""
        try:
            self.inputs.bind_named(tensors, fixed_too=True)
        except InputError:
            return False
        return True

    def parts(self, batch: Values, microbatches: int, outputs: Sequence[str] | None, build: Build) -> BatchParts:
        """The microbatches of a batch, and what its caller gets.

        `outputs`: names and parts of outputs, by which the result is a dict of them; without, it is what `build` makes.
        Raises InputError.
        """
        demand(is_count(microbatches), "microbatches", microbatches, "a whole number of parts, at least 1")
        parts = [batch] if microbatches == 1 else self.split.parts(batch, microbatches)
        if outputs is None:
            return BatchParts(parts, lambda made: build(made[0] if len(made) == 1 else self.split.join(made)))
        asked = OutputSelection.of(self.entry, self.outputs, outputs)
        if len(parts) > 1:
            asked.require_splittable()
        sizes = [[part.sizes] for part in parts]
        return BatchParts(
            [replace(part, wanted=asked.boxes(own)) for part, own in zip(parts, sizes, strict=True)],
            lambda made: asked.joined([asked.results(*one)[0] for one in zip(made, sizes, strict=True)]),
        )

    def shared(self, batch: Values, outputs: Sequence[str], callers: Sequence[Mapping[str, int]]) -> BatchParts:
        """A batch of several callers, and what each of them gets.

        `outputs`: see `parts`; `callers`: the sizes of each where they are other than the batch's.  Raises InputError.
        """
        asked = OutputSelection.of(self.entry, self.outputs, outputs)
        sizes = [{**batch.sizes, **own} for own in callers]
        return BatchParts([replace(batch, wanted=asked.boxes(sizes))], lambda made: asked.results(made[0], sizes))

    def named(self, outputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by their names in the manifest."""
        return dict(zip((tensor.name for tensor in self.entry.outputs), outputs, strict=True))


@dataclass(frozen=True)
class Programs:
    """The programs of an artifact in their order.  A call runs the first one that its arguments fit."""

    programs: tuple[ProgramCalls, ...]
    adapters: AdapterNames = AdapterNames()

    @classmethod
    def parse(cls, manifest: Manifest) -> Programs:
        """Raises ManifestError."""
        return cls(tuple(map(ProgramCalls.parse, manifest.programs)), AdapterNames(manifest.adapters))

    def program_of(self, batch: Values) -> ProgramCalls:
        """The program that runs a batch."""
        return self.programs[batch.program]

    def laid_out(self, batch: Values, ready: Sequence[torch.Event] = ()) -> Values:
        """A batch as it lies in memory in the example, with the events after which it does."""
        tensors = self.program_of(batch).inputs.laid_out(batch.tensors)
        return replace(batch, tensors=tensors, ready=(*made_by_now(tensors), *ready))

    def of_sizes(self, sizes: Mapping[str, int]) -> list[Values]:
        """A batch of zeros for each program that has sizes of these names.  Raises InputError."""
        fit = [i for i, calls in enumerate(self.programs) if sizes.keys() <= calls.inputs.sizes.symbols.keys()]
        if not fit:
            names = sorted({name for calls in self.programs for name in calls.inputs.sizes.symbols})
            known = f"the sizes that may change are {', '.join(names)}" if names else "no size may change"
            raise InputError(f"no program has all the sizes {', '.join(sizes)}; {known}")
        return [replace(self.programs[i].inputs.least(sizes), program=i) for i in fit]

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Values:
        """The batch of a call.  Raises InputError that says of each program why it does not take the call."""
        chosen = self.adapters.given(args, kwargs)
        return self._first(lambda inputs: inputs.bind(args, chosen))

    def bind_named(self, tensors: Mapping[str, torch.Tensor]) -> Values:
        """The batch of tensors by their names in the manifest; of several programs, fixed ones must be there, too.

        Raises InputError as `bind` does, and where programs that take the tensors differ in other arguments.
        """
        several, tensors = len(self.programs) > 1, self.adapters.given((), tensors)
        batch = self._first(lambda inputs: inputs.bind_named(tensors, fixed_too=several))
        first = self.program_of(batch).entry
        for other in self.programs[batch.program + 1 :]:
            if other.entry.signature.arguments != first.signature.arguments and other.takes(tensors):
                names = f"{first.name} and {other.entry.name}"
                raise InputError(f"the programs {names} both take these tensors; they differ in other arguments")
        return batch

    def _first(self, bind: Callable[[Inputs], Values]) -> Values:
        refused: list[InputError] = []
        for i, program in enumerate(self.programs):
            try:
                return replace(bind(program.inputs), program=i)
            except InputError as e:
                refused.append(e)
        if len(refused) == 1:
            raise refused[0]
        reasons = (f"\n  {p.entry.name}: {e.fault}" for p, e in zip(self.programs, refused, strict=True))
        raise InputError(f"none of the {len(refused)} programs takes this call:{''.join(reasons)}")
