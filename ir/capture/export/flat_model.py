"""The model as a function of a flat list of tensors, which torch.export records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import sympy
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import TreeSpec

from ir.autocast import autocast_as_around
from ir.capture.diagnosis import NotExported
from ir.capture.export.ambient import ambient_questions
from ir.capture.export.derivatives import derivatives_seen
from ir.capture.export.example import Example, slotted
from ir.capture.export.fixed.known_values import fixed_buffers
from ir.capture.export.fixed.origins import Origin, OriginTrace
from ir.capture.export.gradient_hooks import gradient_hooks_seen
from ir.capture.export.module_state import converted_for_the_call, data_as_itself, written_in_place
from ir.capture.export.replaced.distributions import unchecked_distributions
from ir.capture.export.replaced.padding import padded_as_in_inference
from ir.capture.export.tracing_questions import tracing_questions
from ir.capture.lazy import computed
from ir.capture.packed.any_of_many import read_any
from ir.capture.packed.each import EachNumber
from ir.capture.packed.each_tensor import images_as_one, mask_is_known, sizes_among, takes_sizes
from ir.capture.packed.padding import leave_out_padding, padding_behind
from ir.capture.packed.pieces import pieces_as_one
from ir.capture.packed.prompts import RunsOfImages, known_counters, prompts_as_operators
from ir.capture.packed.rows import RowsInPlace
from ir.capture.packed.towers import grids_as_operators, known_functions, takes_grids
from ir.capture.program.gradients import GradMode
from ir.capture.repeats.layers import LayersOnce
from ir.capture.sizes.iterated import iterated_as_one
from ir.capture.unregistered_state.places import changed, newly_held
from ir.capture.unregistered_state.places import leaves as held_by
from ir.location import Where
from ir.objects.signature import Tree, call, flatten, names
from ir.sizes import Dim


@dataclass
class Seen:
    """Results of a run, in an object of our own: torch.export undoes what forward assigns to a module or its lists."""

    returns: list[Tree] = field(default_factory=list)  # the containers of the results, of each run
    frozen: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gradients: GradMode = field(default_factory=GradMode)
    origins: OriginTrace = field(default_factory=OriginTrace)
    notes: list[str] = field(default_factory=list)
    derivatives: list[Where] = field(default_factory=list)  # lines that take them
    asked: bool = False
    untold: bool = False  # whether a question for the export alone got the answer of a plain call
    asked_about: set[Origin] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    grids: dict[str, tuple[int, Dim]] = field(default_factory=dict)  # input -> rows of a token, patches in all
    chosen: list[Dim] = field(default_factory=list)  # the numbers of rows that masks must choose
    left_out: tuple[int, ...] = ()  # results that are not returned
    limits: dict[tuple[str, int], tuple[int, Dim | None]] = field(default_factory=dict)  # divisor, most of the rest
    sized: list[SizedRows] = field(default_factory=list)  # rows of images that their sizes describe
    runs: list[RunsOfImages] = field(default_factory=list)  # of places of images that grids describe
    padded: list[Dim | None] = field(default_factory=list)  # numbers of images with padding among them
    of_padded: list[torch.Tensor] = field(default_factory=list)  # what is made of them
    real: list[RealImages] = field(default_factory=list)

    def ask(self, tensor: torch.Tensor | None, untold: bool) -> None:
        self.asked = True
        self.untold |= untold
        if tensor is not None:
            self.asked_about |= self.origins.of(tensor)

    def note_grid(self, name: str, total: Any, merge: int) -> bool:
        """Note the grids that an input holds, and the number of their patches; False where that is no size."""
        if (count := self._in_names(total)) is None:
            return False
        self.grids[name] = lcm(self.grids.get(name, (1, 0))[0], merge), count
        return True

    def least_length(self, lengths: torch.Tensor) -> int:
        """The least length of pieces whose lengths are made of grids; 0 for other lengths."""
        inputs = [origin for origin in self.origins.of(lengths) if origin.kind != "size"]
        if inputs and {origin.name for origin in inputs} <= {rows.sizes for rows in self.sized}:
            return 1
        merges = [
            self.grids[origin.name][0] for origin in inputs if origin.kind == "input" and origin.name in self.grids
        ]
        return min(merges, default=0) ** 2 if len(merges) == len(inputs) else 0

    def rows(self, name: str, count: EachNumber, total: Any) -> None:
        """Note the rows of all images of an input of sizes, of which each has a number of `count`."""
        self.sized.append(SizedRows(name, dict(count.by), self._in_names(total)))

    def limit(self, name: str, count: EachNumber, size: Any) -> None:
        """Note what no number in a column of an input of sizes is above, as a count of each image is not."""
        [(column, divisor)] = count.by.items()
        self.limits[name, column] = divisor, self._in_names(size)

    def padding(self, total: Any) -> None:
        """Note images, so many in all, some of which are padding."""
        self.padded.append(self._in_names(total))

    def features(self, made: Sequence[torch.Tensor]) -> None:
        """Note the tensors that are made of images with padding among them."""
        self.of_padded += made

    def real_rows(self, images: str, ids: str, value: int, rows: Any, total: Any) -> None:
        """Note that of `rows` of all images those of real ones are read, as many as the input `ids` has a value."""
        count, of = self._in_names(rows), self._in_names(total)
        if count is None or of is None or not (each := sympy.simplify(sympy.sympify(count) / of)).is_Integer:
            return
        self.padded.append(count)
        self.real.append(RealImages(images, ids, value, int(each)))

    def without_packed(self, results: Sequence[Any]) -> list[Any]:
        """The results with None for those that have as many rows as sizes of images say, behind which others lie."""
        alone = [size for size in self.padded if not isinstance(size, (int, sympy.Symbol))]  # not that of texts, too
        totals = [total for total in (*(rows.total for rows in self.sized), *alone) if total is not None]
        packed = [i for i, result in enumerate(results) if self._has_rows(result, totals)]
        if packed:
            deciding = self.sized[0].sizes if self.sized else self.real[0].images if self.real else "pixels"
            said = f"the values of `{deciding}` say how many, as of image_hidden_states"
            self.notes.append(f"results with a row for each place of an image are left out: {said}")
        self.left_out = tuple(packed)
        return [None if i in packed else result for i, result in enumerate(results)]

    def _has_rows(self, result: Any, totals: Sequence[Dim]) -> bool:
        if not isinstance(result, torch.Tensor) or not result.dim():
            return False
        if any(result is made for made in self.of_padded):
            return True
        size = self._in_names(result.shape[0])
        return size in totals and (not isinstance(size, int) or result.dim() == 2)  # numbers may be equal by chance

    def is_same_size(self, one: Any, other: Any) -> bool:
        """Whether two sizes are one by the user's names."""
        names = self._in_names(one), self._in_names(other)
        return names[0] is not None and names[0] == names[1]

    def note_chosen(self, count: Any) -> bool:
        """Note the number of rows that a mask must choose; False where that is no size."""
        if (size := self._in_names(count)) is None:
            return False
        self.chosen.append(size)
        return True

    def _in_names(self, size: Any) -> Dim | None:
        """A size over symbols of the user's names; None where it is made of something else."""
        if not isinstance(size, torch.SymInt):
            return size
        known = self.origins.by_symbol
        origins = {s: tuple(known.get(s, ())) for s in size.node.expr.free_symbols}
        if any(len(of) != 1 or of[0].kind != "size" for of in origins.values()):
            return None
        return size.node.expr.xreplace({s: sympy.Symbol(name) for s, ((_, name),) in origins.items()})

    def note_joined(self, size: Any) -> None:
        """Note a size along which a tensor was taken apart and joined again."""
        self.joined |= {origin.name for origin in self.origins.of_size(size)}


@dataclass(frozen=True)
class SizedRows:
    """Rows of all images, as many of each as the product of its numbers in an input, each over a divisor."""

    sizes: str  # the input
    divisors: Mapping[int, int]  # by column; empty: it is not such a product
    total: Dim | None  # of all rows, at most


@dataclass(frozen=True)
class RealImages:
    """Images of an input that are no padding, as they are not all zeros: `each` has places in another input."""

    images: str  # the input `[texts, images, …]`
    ids: str
    value: int  # in the places
    each: int


_RETURNED = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)  # results that a program makes


class Flat(nn.Module):
    """The model as a function from a flat list of tensors to a flat list of tensors and sizes."""

    def __init__(self, example: Example, once: LayersOnce | None = None) -> None:
        super().__init__()
        self.m = example.model
        self._example = example
        self._once = once or LayersOnce({})
        self.seen = Seen()
        mask_is_known()
        known_functions()  # which are tried before tensors are traced
        self._counters = known_counters(self.m) if example.packs else []
        self._padded = leave_out_padding(self.m) if example.packs else []

    def forward(self, tensors: list[torch.Tensor]) -> list[Any]:
        self._once.begin()
        before = held_by(self.m)
        arguments = self._example.arguments.fill(tensors)
        given = {name: flatten(value) for name, value in arguments.items()}
        padded = padded_as_in_inference(self.seen.notes.append)
        with ExitStack() as contexts:
            for context in (data_as_itself(), padded, converted_for_the_call(self.m), self._origins(tensors)):
                contexts.enter_context(context)
            note = self.seen.notes.append
            for context in (gradient_hooks_seen(note), ambient_questions(note), unchecked_distributions(note)):
                contexts.enter_context(context)
            leaves = contexts.enter_context(written_in_place(self.m))
            contexts.enter_context(fixed_buffers(self.m, self._example.buffers))
            contexts.enter_context(self.seen.gradients.watched())
            contexts.enter_context(derivatives_seen(self.seen.derivatives.append))
            contexts.enter_context(tracing_questions(self.seen.ask, self._example))
            contexts.enter_context(autocast_as_around())
            if self._example.joins:
                contexts.enter_context(iterated_as_one(self.seen.note_joined))
            sized = sizes_among(dict(zip(names(self._example.arguments), tensors, strict=True)))
            if self._example.packs and takes_sizes(self.m) and sized is not None:
                contexts.enter_context(images_as_one(*sized, self.seen.is_same_size, self.seen))
                contexts.enter_context(pieces_as_one(self.seen.least_length))
            elif self._example.packs and takes_grids(self.m):
                by_id = {id(t): name for name, t in zip(names(self._example.arguments), tensors, strict=True)}
                contexts.enter_context(grids_as_operators(self.m, by_id, self.seen.note_grid))
                contexts.enter_context(prompts_as_operators(self._counters, by_id, self.seen.runs.append))
                contexts.enter_context(pieces_as_one(self.seen.least_length))
                contexts.enter_context(RowsInPlace(self.seen.note_chosen))
            elif self._padded:
                by_id = {id(t): name for name, t in zip(names(self._example.arguments), tensors, strict=True)}
                contexts.enter_context(padding_behind(self._padded, by_id, self.seen))
            result = call(self.m, self._example.parameters, arguments)
            results, spec = flatten(result)
            read_any(results)
            leaves.extend(map(computed, results))
            leaves[:] = self.seen.without_packed(leaves)
        self.seen.changed += [n for n, v in arguments.items() if _refilled(given[n], v) and not _is_in(v, result)]
        after = held_by(self.m)
        self.seen.frozen += changed(before, after, self.m.parameters())
        self.seen.filled += newly_held(before, after)
        kept = [leaf for leaf in leaves if isinstance(leaf, _RETURNED)]
        if any(not isinstance(number, torch.Tensor) and free_unbacked_symbols(number) for number in kept):
            raise NotExported("the model returns a number that values decide", advice="return it as a tensor")
        self.seen.returns.append(slotted(leaves, spec, _RETURNED))
        return kept

    def _origins(self, tensors: Sequence[torch.Tensor]) -> AbstractContextManager[None]:
        """Follow what is made of the inputs, their sizes, the buffers and the parameters."""
        given = zip(names(self._example.arguments), tensors, self._example.marks, strict=True)
        for name, tensor, dims in given:
            self.seen.origins.start(tensor, Origin("input", name))
            for dim, mark in dims.items():
                self.seen.origins.start_size(tensor.shape[dim], mark.name)
        for name, buffer in self.m.named_buffers():
            self.seen.origins.start(buffer, Origin("buffer", name))
        for parameter in self.m.parameters():
            self.seen.origins.start(parameter, Origin("parameter"))
        return self.seen.origins.watched()


def _refilled(before: tuple[list[Any], TreeSpec], argument: Any) -> bool:
    """Whether the containers of an argument hold something else than before."""
    leaves, spec = flatten(argument)
    return spec != before[1] or any(a is not b for a, b in zip(before[0], leaves, strict=True))


def _is_in(argument: Any, result: Any) -> bool:
    """Whether the model returns an argument, alone or in a container."""
    inside = result.values() if isinstance(result, Mapping) else result if isinstance(result, (list, tuple)) else ()
    return argument is result or any(argument is value for value in inside)


class ModelAsItIs(nn.Module):
    """The model as a function of a flat list of tensors that returns the model's own containers."""

    def __init__(self, example: Example) -> None:
        super().__init__()
        self.m = example.model
        self._example = example

    def forward(self, tensors: list[torch.Tensor]) -> Any:
        return call(self.m, self._example.parameters, self._example.arguments.fill(tensors))
