"""Inputs whose values decide shapes, such as the grids of images: captured as constants of the example's values."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from ir.capture.export.example import Example
from ir.capture.sizes.dynamic import FixedSizes, without_marks
from ir.errors import CaptureError
from ir.graph import Call, Constant, Graph, Value
from ir.objects.signature import FixedTensor, Slot, Tree, names

LARGEST = 4096  # bytes of an input that is fixed without being named
_ELEMENTS = 1 << 16  # of the constants that are computed with while a model is traced


def may_be_fixed(example: Example, soft: bool) -> list[int]:
    """The inputs that may be fixed without being named, the smallest first: few integers on the CPU.

    One is not if all its sizes may change, as those of token ids and padding masks, or any where they are not `soft`.
    """
    found = [
        (tensor.nbytes, i)
        for i, (tensor, dims) in enumerate(zip(example.tensors, example.marks, strict=True))
        if _is_integer(tensor) and 0 < tensor.nbytes <= LARGEST and tensor.device.type == "cpu"
        if not dims or (len(dims) < tensor.dim() and all(soft or mark.soft for mark in dims.values()))
    ]
    return [i for _, i in sorted(found)] if len(example.tensors) > 1 else []


def may_be_named(example: Example) -> list[str]:
    """The inputs whose values the user may ask to fix."""
    known = zip(names(example.arguments), example.tensors, strict=True)
    found = [name for name, tensor in known if _is_integer(tensor) and 0 < tensor.numel() <= _ELEMENTS]
    return found if len(example.tensors) > len(found) else found[1:]


def with_fixed(example: Example, inputs: Collection[int]) -> Example:
    """The example with the values of these inputs fixed, and so the marked sizes that are theirs."""
    kept = [i for i in range(len(example.tensors)) if i not in inputs]

    def leaf(old: Any) -> Any:
        if not isinstance(old, Slot):
            return old
        return FixedTensor.of(example.tensors[old.index]) if old.index in inputs else Slot(kept.index(old.index))

    marks = without_marks(example.marks, [(i, dim) for i in inputs for dim in example.marks[i]])
    return replace(
        example,
        arguments=replace(example.arguments, leaves=tuple(map(leaf, example.arguments.leaves))),
        tensors=[example.tensors[i] for i in kept],
        marks=[marks[i] for i in kept],
    )


def with_named_fixed(example: Example, named: Collection[str], soft: bool) -> Example:
    """The example with the inputs of these names fixed.

    Raises CaptureError for one that does not exist or holds other than integers, and FixedSizes for one that has a
    size that may change, unless these are `soft`.
    """
    known = names(example.arguments)
    for name in named:
        if name not in known:
            raise CaptureError(f"there is no input `{name}` to fix; the model takes {', '.join(known)}")
        tensor = example.tensors[known.index(name)]
        if not _is_integer(tensor) or not 0 < tensor.numel() <= _ELEMENTS:
            raise CaptureError(
                f"the input `{name}` cannot be fixed: it must hold 1 to {_ELEMENTS:,} integers or booleans"
            )
    inputs = {known.index(name) for name in named}
    if len(inputs) == len(known):
        raise CaptureError("all inputs are to be fixed; leave one that may change")
    marks = ((i, dim, mark) for i in sorted(inputs) for dim, mark in example.marks[i].items())
    sizes = {(i, dim): mark.name for i, dim, mark in marks if not (soft or mark.soft)}
    if sizes:
        raise FixedSizes(
            {(i, d): f"`{s}` cannot be dynamic: the values of `{known[i]}` are fixed" for (i, d), s in sizes.items()}
        )
    return with_fixed(example, inputs)


def looks_up(graph: Graph, example: Example) -> bool:
    """Whether the values of a fixed input, as they are, look up weights, as token ids do: such an input is data."""
    fixed = [leaf.tensor() for leaf in example.arguments.leaves if isinstance(leaf, FixedTensor)]
    used = [_origin(graph, n.operands[1]) for n in graph.nodes if isinstance(n, Call) and n.op is _EMBEDDING]
    return any(isinstance(v, Constant) and torch.equal(v.data, tensor) for v in used for tensor in fixed)


_EMBEDDING = torch.ops.aten.embedding.default


def _origin(graph: Graph, value: Value) -> Value:
    """The value of which `value` is a copy, a view or a conversion."""
    while value in graph.producer and len(operands := graph.producer[value].operands) == 1:
        value = operands[0]
    return value


def notes_on_fixed(before: Example, after: Example) -> tuple[str, ...]:
    """What is fixed in `after` alone: the values of inputs, and sizes that could change before."""
    known = names(before.arguments)
    inputs = [
        (known[old.index], new)
        for old, new in zip(before.arguments.leaves, after.arguments.leaves, strict=True)
        if isinstance(old, Slot) and isinstance(new, FixedTensor)
    ]
    left = {mark.name for dims in after.marks for mark in dims.values()}
    sizes = {
        mark.name: tensor.shape[dim]
        for tensor, dims in zip(before.tensors, before.marks, strict=True)
        for dim, mark in dims.items()
        if mark.name not in left
    }
    values = (f"`{name}` is fixed at {new.tensor().tolist()}: its values decide shapes" for name, new in inputs)
    return (*values, *(f"`{name}` stays at {size}, as that of an input that is fixed" for name, size in sizes.items()))


@contextmanager
def known_values(arguments: Tree) -> Iterator[None]:
    """Compute with the values of fixed inputs inside the context: torch does so for single numbers alone."""
    if not any(isinstance(leaf, FixedTensor) for leaf in arguments.leaves):
        yield
        return
    with (
        patch("torch._subclasses.fake_tensor.CONSTANT_NUMEL_LIMIT", _ELEMENTS),
        patch("torch.tensor", _tensor_of(torch.tensor)),
    ):
        yield


def _tensor_of(tensor: Any) -> Any:
    """torch.tensor, which cannot read single numbers in tensors while these are traced: they are stacked."""

    def from_data(data: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(data, list) and data and all(isinstance(x, torch.Tensor) and not x.dim() for x in data):
            return torch.stack(data).to(**kwargs) if kwargs else torch.stack(data)
        return tensor(data, **kwargs)

    return from_data


def _is_integer(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())
