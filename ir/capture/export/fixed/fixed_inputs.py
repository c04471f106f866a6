"""Inputs and buffers whose values decide shapes, such as the grids of images: captured at those of the example."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ir.capture.export.example import Example
from ir.capture.export.fixed.known_values import MOST_ELEMENTS
from ir.capture.export.fixed.origins import Origin, Origins
from ir.capture.sizes.dynamic import FixedSizes, Mark, without_marks
from ir.errors import CaptureError
from ir.graph import Call, Constant, Graph, Value
from ir.objects.signature import FixedTensor, Slot, names

LARGEST = 4096  # bytes of an input or a buffer that is fixed without being named


def may_be_fixed(example: Example, origin: Origin, soft: bool, loosely: bool) -> bool:
    """Whether values may be fixed without being asked for: a few integers of an input, or a small buffer.

    Sizes that may change must be `soft`.  What seems data, and sizes themselves, are fixed `loosely` alone.
    """
    match origin.kind:
        case "buffer":
            return _is_small(example.model.get_buffer(origin.name))
        case "size":
            return loosely and all(soft or mark.soft for _, _, mark in _of_name(example, origin.name))
        case "input" if may_be_named(example, origin):
            i = names(example.arguments).index(origin.name)
            dims = example.marks[i]
            large = loosely and bool(dims)
            return all(soft or mark.soft for mark in dims.values()) and (large or _is_small(example.tensors[i]))
    return False


def data_inputs(example: Example) -> Origins:
    """The inputs all of whose sizes may change, as those of token ids and padding masks: data, not descriptions."""
    given = zip(names(example.arguments), example.tensors, example.marks, strict=True)
    return frozenset(Origin("input", name) for name, tensor, dims in given if dims and len(dims) == tensor.dim())


def may_be_named(example: Example, origin: Origin) -> bool:
    """Whether it is an input whose values can be fixed."""
    known = names(example.arguments)
    given = origin.kind == "input" and origin.name in known and len(known) > 1
    return given and _is_countable(example.tensors[known.index(origin.name)])


def with_fixed_values(example: Example, fixed: Collection[Origin]) -> Example:
    """The example with the values of inputs and buffers fixed; with sizes fixed only where there is nothing else.

    What is made of numbers and fixed sizes alone is then known.
    """
    given = (origin.name for origin in fixed if origin.kind == "buffer")
    buffers = sorted({name for buffer in given for name in _alike(example.model, buffer)})
    inputs = [i for i, name in enumerate(names(example.arguments)) if Origin("input", name) in fixed]
    if not buffers and not inputs:
        sizes = [(i, dim) for origin in fixed for i, dim, _ in _of_name(example, origin.name)]
        return replace(example, marks=without_marks(example.marks, sizes), computed=True)
    values = {name: FixedTensor.of(example.model.get_buffer(name)) for name in buffers}
    return replace(with_fixed(example, inputs), buffers={**example.buffers, **values})


def _alike(model: nn.Module, buffer: str) -> list[str]:
    """The buffer, and those of its name in other modules of its class, which have the same code."""
    path, _, name = buffer.rpartition(".")
    cls = type(model.get_submodule(path))
    alike = (p for p, m in model.named_modules() if type(m) is cls and not cls.__module__.startswith("torch."))
    held = dict(model.named_buffers(remove_duplicate=False))
    others = (f"{p}.{name}".lstrip(".") for p in alike)
    return [buffer, *(other for other in others if other in held and _is_small(held[other]))]


def _of_name(example: Example, size: str) -> list[tuple[int, int, Mark]]:
    """Tensor, dimension and mark of each size of that name."""
    return [(i, d, m) for i, dims in enumerate(example.marks) for d, m in dims.items() if m.name == size]


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
        if not _is_countable(example.tensors[known.index(name)]):
            raise CaptureError(
                f"the input `{name}` cannot be fixed: it must hold 1 to {MOST_ELEMENTS:,} integers or booleans"
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
    """Notes on all that is fixed in `after` alone: the values of inputs and buffers, and sizes of these inputs."""
    known = names(before.arguments)
    leaves = zip(before.arguments.leaves, after.arguments.leaves, strict=True)
    inputs = {old.index: new for old, new in leaves if isinstance(old, Slot) and isinstance(new, FixedTensor)}
    sizes = {mark.name: before.tensors[i].shape[dim] for i in sorted(inputs) for dim, mark in before.marks[i].items()}
    return (
        *(f"`{known[i]}` is fixed at {_text(new)}: its values decide shapes" for i, new in inputs.items()),
        *(f"`{name}` stays at {size}, as that of an input that is fixed" for name, size in sizes.items()),
        *_notes_on_buffers({name: new for name, new in after.buffers.items() if name not in before.buffers}),
    )


def _notes_on_buffers(fixed: Mapping[str, FixedTensor]) -> list[str]:
    """A note on each buffer, or one on many."""
    if len(fixed) > _MANY:
        first, *others = fixed
        return [f"{first} and {len(others)} more buffers are fixed at what they hold: their values decide shapes"]
    return [f"{name} is fixed at {_text(value)}: its values decide shapes" for name, value in fixed.items()]


def _text(fixed: FixedTensor) -> str:
    tensor = fixed.tensor()
    sizes = ", ".join(map(str, tensor.shape))
    return (
        str(tensor.tolist()) if tensor.numel() <= _SHOWN else f"the {tensor.numel():,} values [{sizes}] of the example"
    )


_MANY = 3
_SHOWN = 64


def _is_small(tensor: torch.Tensor) -> bool:
    return 0 < tensor.nbytes <= LARGEST and tensor.device.type == "cpu"


def _is_countable(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds integers or booleans, few enough to compute with while a model is traced."""
    return not tensor.is_floating_point() and not tensor.is_complex() and 0 < tensor.numel() <= MOST_ELEMENTS
