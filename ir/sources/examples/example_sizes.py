"""Example inputs of other sizes, which take the place of the example's in all inputs that have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from ir.capture.export.example import layout_of
from ir.capture.sizes.dynamic import Mark, mark_dynamic
from ir.errors import SourceError
from ir.objects.signature import names
from ir.sizes import in_layout
from ir.sources.examples.variants import call_arguments, with_tensors
from ir.sources.source import Source, Variant

Shapes: TypeAlias = Mapping[str, Sequence[int]]
"""Shapes of inputs by name."""


def with_example_sizes(source: Source, shapes: Shapes) -> Source:
    """The source whose example inputs have these shapes.

    A size that has a name is the same in all inputs of a call.  Dtypes and values stay; a longer input repeats its last
    value but one.  Raises SourceError for an input that no call has, and for sizes that may not be so.
    """
    if not shapes:
        return source
    known = list(dict.fromkeys(name for call in source.calls for name in names(call_arguments(source.model, call)[0])))
    for name in shapes:
        if name not in known:
            raise SourceError(f"there is no input `{name}` to give a size; the model takes {', '.join(known)}")
    first, *others = (_resized_call(source, call, shapes) for call in source.calls)
    return replace(source, args=first.args, kwargs=first.kwargs, variants=tuple(others), made_up=False)


def _resized_call(source: Source, call: Variant, shapes: Shapes) -> Variant:
    """The call with these shapes; where it is one of several, an error says which, and another way."""
    try:
        return _resized(source, call, shapes)
    except SourceError as e:
        if not source.variants:
            raise
        raise SourceError(f"in the variant {call.name}: {e}; --workload names sizes of each variant") from e


def _resized(source: Source, call: Variant, shapes: Shapes) -> Variant:
    tree, tensors = call_arguments(source.model, call)
    marks = mark_dynamic(call.dynamic_shapes, tree, tensors)
    sizes: dict[str, int] = {}
    for name, tensor, dims in zip(names(tree), tensors, marks, strict=True):
        for mark, size in _given(name, tensor, dims, shapes[name]) if name in shapes else ():
            if sizes.setdefault(mark.name, size) != size:
                raise SourceError(f"the example has {mark.name} {sizes[mark.name]} and {size}; give it one size")
    resized = [_with_sizes(tensor, dims, sizes) for tensor, dims in zip(tensors, marks, strict=True)]
    return with_tensors(call, tensors, resized)


def _given(
    name: str, tensor: torch.Tensor, dims: Mapping[int, Mark], shape: Sequence[int]
) -> Iterator[tuple[Mark, int]]:
    """The sizes of one input that may change, as a shape gives them.  Raises SourceError for one that may not be so."""
    if len(shape) != tensor.dim():
        there = "x".join(map(str, tensor.shape))
        raise SourceError(f"the example's `{name}` has {tensor.dim()} dimensions ({there}), and {len(shape)} are given")
    for dim, (size, old) in enumerate(zip(shape, tensor.shape, strict=True)):
        mark = dims.get(dim)
        if mark is None:
            if size != old:
                fixed = f"dimension {dim} of `{name}` is fixed at {old}, and {size} is given"
                raise SourceError(f"{fixed}; {_may_change(dims)}")
            continue
        if not mark.min <= size <= (mark.max or size):
            ends = f"{mark.min} or more" if mark.max is None else f"{mark.min} to {mark.max}"
            raise SourceError(f"{mark.name}, dimension {dim} of `{name}`, may be {ends}, and {size} is given")
        yield mark, size


def _may_change(dims: Mapping[int, Mark]) -> str:
    named = ", ".join(f"{mark.name} (dimension {dim})" for dim, mark in dims.items())
    return f"of its sizes {named} may change" if named else "--dynamic names the sizes that may change"


def _with_sizes(tensor: torch.Tensor, dims: Mapping[int, Mark], sizes: Mapping[str, int]) -> torch.Tensor:
    """A tensor with other sizes, in the same layout."""
    made = tensor.detach()
    for dim, mark in dims.items():
        old, new = tensor.shape[dim], sizes.get(mark.name, tensor.shape[dim])
        if new != old:
            made = made.index_select(dim, torch.tensor(_taken(old, new), device=tensor.device))
    if made.shape == tensor.shape:
        return tensor
    return in_layout(made, layout_of(tensor)).requires_grad_(tensor.requires_grad)


def _taken(old: int, new: int) -> list[int]:
    """For each of `new` places the one of `old` whose value it gets: the first and the last stay at the ends."""
    if new == 1:
        return [0]
    return [*(min(place, max(old - 2, 0)) for place in range(new - 1)), old - 1]
