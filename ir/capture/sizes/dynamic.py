"""Marks: the dimensions of the example inputs that may change, named by the user's `dynamic_shapes`."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.export import Dim

from ir.errors import CaptureError
from ir.objects.signature import Tree, names, slot_paths

DynamicShapes: TypeAlias = Mapping[str, Any] | Sequence[Any] | None
"""By parameter name (or position), nested as the arguments are; at each tensor `{dim: name}`."""


@dataclass(frozen=True)
class Mark:
    """The name and the bounds of a size that may change."""

    name: str
    min: int = 1
    max: int | None = None
    soft: bool = False  # Dim.AUTO: it stays as it is in the example where the model fixes it


Marks: TypeAlias = Sequence[Mapping[int, Mark]]
"""For each input tensor, the marks of its dimensions."""


class FixedSizes(CaptureError):
    """Sizes that were to be dynamic, and for which the model works at one value only."""

    def __init__(self, reasons: Mapping[tuple[int, int], str], divisors: Collection[int] = ()) -> None:
        self.reasons = reasons  # by tensor and dimension
        self.divisors = divisors  # numbers of which code asks how often they are in a size, as that of a chunk
        advice = "leave that size out of the dynamic shapes, or write the code for any size"
        super().__init__(f"{'; '.join(dict.fromkeys(reasons.values()))}\n  what usually helps: {advice}")


def without_marks(marks: Marks, fixed: Collection[tuple[int, int]]) -> Marks:
    """The marks without those of `fixed`, pairs of tensor and dimension, and all others of their names."""
    names = {marks[tensor][dim].name for tensor, dim in fixed}
    return [{dim: mark for dim, mark in dims.items() if mark.name not in names} for dims in marks]


def without_fixed(marks: Marks, error: FixedSizes, soft: bool) -> tuple[Marks, tuple[str, ...]]:
    """The marks without those of the sizes that a model fixes, and notes on these.

    Raises the error for a size that must be dynamic: one that is not `soft`.
    """
    if not soft and not set(error.reasons) <= set(soft_marks(marks)):
        raise error
    notes = tuple(f"{reason}; it stays at that" for reason in dict.fromkeys(error.reasons.values()))
    return without_marks(marks, error.reasons), notes


def soft_marks(marks: Marks) -> list[tuple[int, int]]:
    """Tensor and dimension of each size that need not be dynamic."""
    return [(i, dim) for i, dims in enumerate(marks) for dim, mark in dims.items() if mark.soft]


def mark_dynamic(shapes: DynamicShapes, arguments: Tree, tensors: Sequence[torch.Tensor]) -> Marks:
    """The marks of each tensor.  Raises CaptureError for a name or a dimension that does not exist."""
    if isinstance(shapes, Mapping):
        _check_names(shapes, arguments)
    elif shapes is not None:
        shapes = dict(zip(_top_names(arguments), shapes, strict=False))
    tree_names = names(arguments)
    marks = []
    for name, path, tensor in zip(tree_names, slot_paths(arguments), tensors, strict=True):
        spec = _descend(shapes, path)
        dims = enumerate(spec) if isinstance(spec, (list, tuple)) else (spec or {}).items()
        found = {dim: _mark(size, name, dim) for dim, size in dims if size is not None and not isinstance(size, int)}
        for dim in found:
            if not -tensor.dim() <= dim < tensor.dim():
                raise CaptureError(f"dynamic dimension {dim} of `{name}`: it has {tensor.dim()} dimensions")
        marks.append({dim % tensor.dim(): mark for dim, mark in found.items()})
    _check_agreement(tree_names, tensors, marks)
    return marks


def _check_agreement(input_names: Sequence[str], tensors: Sequence[torch.Tensor], marks: Marks) -> None:
    """Raise CaptureError for a name of two sizes, one that is no Python identifier, or a size of 0."""
    seen: dict[str, tuple[int, str]] = {}
    for name, tensor, dims in zip(input_names, tensors, marks, strict=True):
        for dim, mark in dims.items():
            if not mark.name.isidentifier() or keyword.iskeyword(mark.name):
                raise CaptureError(f"a dynamic size of `{name}` is named {mark.name!r}; use a Python identifier")
            if not tensor.shape[dim]:
                raise CaptureError(
                    f"`{mark.name}` is 0 in the example `{name}`; give an example of the usual size, for which to cut"
                )
            size, first = seen.setdefault(mark.name, (tensor.shape[dim], name))
            if size != tensor.shape[dim]:
                raise CaptureError(f"`{mark.name}` is {size} in `{first}` and {tensor.shape[dim]} in `{name}`")


def widen(tensors: Sequence[torch.Tensor], marks: Marks) -> list[torch.Tensor]:
    """Example tensors with every marked size at least 2: torch.export treats a size of 1 as a constant."""
    small = {
        mark.name
        for tensor, dims in zip(tensors, marks, strict=True)
        for dim, mark in dims.items()
        if tensor.shape[dim] < 2
    }
    wide = []
    for tensor, dims in zip(tensors, marks, strict=True):
        for dim, mark in dims.items():
            if mark.name in small:
                shape = list(tensor.shape)
                tensor = (
                    torch.cat([tensor, tensor], dim)
                    if shape[dim]
                    else tensor.new_zeros([2 if i == dim else s for i, s in enumerate(shape)])
                )
        wide.append(tensor)
    return wide


def export_spec(marks: Marks) -> list[dict[int, Any]]:
    """The marks as the `dynamic_shapes` of torch.export."""
    return [dict.fromkeys(dims, Dim.DYNAMIC) for dims in marks]


def merged_shapes(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Two dynamic shapes in one, dimension by dimension; `given` wins, also where it is nested otherwise."""
    both = dict(declared)
    for name, dims in given.items():
        before = _by_dimension(both.get(name))
        both[name] = dims if before is None or _by_dimension(dims) is None else {**before, **dims}
    return both


def _by_dimension(dims: Any) -> dict[int, Any] | None:
    """The entry of one tensor as `{dim: name}`; None for that of containers."""
    if isinstance(dims, (list, tuple)):
        dims = dict(enumerate(dims))
    if not isinstance(dims, Mapping):
        return None
    nested = any(not isinstance(key, int) or isinstance(v, (Mapping, list, tuple)) for key, v in dims.items())
    return None if nested else {dim: size for dim, size in dims.items() if size is not None}


def parse_dynamic(text: str) -> tuple[str, dict[int, str]]:
    """`input_ids:0=batch,1=seq` -> ("input_ids", {0: "batch", 1: "seq"}).  Raises ValueError."""
    name, _, dims = text.partition(":")
    try:
        pairs = [pair.split("=") for pair in dims.split(",")]
        parsed = {int(dim): size.strip() for dim, size in pairs}
    except ValueError:
        parsed = {}
    if not name or not parsed or not all(size.isidentifier() for size in parsed.values()):
        raise ValueError(f"{text!r} does not read as INPUT:DIM=NAME,DIM=NAME, for example input_ids:0=batch,1=seq")
    return name.strip(), parsed


def _mark(size: Any, tensor: str, dim: int) -> Mark:
    if isinstance(size, str):
        return Mark(size)
    if isinstance(size, Dim):
        low, high = int(getattr(size, "min", 0)), getattr(size, "max", None)
        return Mark(_in_words(size.__name__), max(low, 1), None if high is None or high >= 2**31 else int(high))
    return Mark(f"{tensor.replace('.', '_')}_{dim}", soft=size is Dim.AUTO)  # or Dim.DYNAMIC: sizes without a name


def _in_words(name: str) -> str:
    """The name of a size; of one that is derived from another, such as `2*h` and `h + 1`, an identifier."""
    for sign, word in (("*", " times "), ("+", " plus "), ("-", " less ")):
        name = name.replace(sign, word)
    words = "_".join(name.split())
    return f"size_{words}" if words[:1].isdigit() else words


def _top_names(arguments: Tree) -> list[str]:
    return list(arguments.spec.context)


def _check_names(shapes: Mapping[str, Any], arguments: Tree) -> None:
    known = _top_names(arguments)
    for name in shapes:
        if name not in known:
            raise CaptureError(f"dynamic shapes name `{name}`, which is no argument of the model; it takes {known}")


def _descend(shapes: Any, path: Sequence[tuple[Any, int]]) -> Any:
    """The entry of `shapes` for the tensor at the end of a path; None if there is none."""
    for key, position in path:
        if isinstance(shapes, Mapping):
            shapes = shapes.get(key)
        elif isinstance(shapes, (list, tuple)):
            shapes = shapes[position] if position < len(shapes) else None
    return shapes
