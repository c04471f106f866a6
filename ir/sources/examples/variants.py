"""Variants of a call: other values of the inputs that decide shapes, and example inputs that go with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ir.capture.export.example import slotted
from ir.errors import SourceError
from ir.objects.signature import Tree, bind, flatten, forward_parameters, names
from ir.sources.source import Source, Variant

InputValues: TypeAlias = Mapping[str, torch.Tensor]
"""InputValues of inputs by name, as a text says them: numbers, or rows of numbers."""

_LONGEST = 40  # characters of a program's name that says its values


def with_fixed_inputs(source: Source, texts: Sequence[str]) -> Source:
    """The source with inputs fixed: `grid` at the value of the example, `grid=1x28x42` at this one.

    Several values of one input make as many variants; those of several inputs are taken together, the first with the
    first.  Raises SourceError for a text that does not read so, and for values for which there are no example inputs.
    """
    named, wanted = read_fixed(texts)
    if len(wanted) > 1 and source.variants:
        raise SourceError("--fix with several values makes variants, and the source has its own; use one or the other")
    calls = [_call(source, values) for values in wanted]
    if len(calls) > 1:
        calls = [replace(call, name=_name(source.model, call, named)) for call in calls]
    else:
        calls += source.variants
    first, *others = calls
    if others and named:
        first, *others = _each_with_its_own(source.model, calls, named)
    return replace(
        source,
        program=first.name,
        args=first.args,
        kwargs=first.kwargs,
        dynamic_shapes=first.dynamic_shapes,
        example_notes=first.notes,
        fix=first.fix if others else named,
        variants=tuple(others),
    )


def _each_with_its_own(model: nn.Module, calls: Sequence[Variant], fixed: Sequence[str]) -> list[Variant]:
    """The calls, in each of which those inputs are fixed that it has.  Raises SourceError for one that none has."""
    known = [_tensors(model, call) for call in calls]
    for name in fixed:
        if not any(name in tensors for tensors in known):
            raise SourceError(f"there is no input `{name}` to fix; the model takes {', '.join(known[0])}")
    return [
        replace(call, fix=tuple(n for n in fixed if n in tensors)) for call, tensors in zip(calls, known, strict=True)
    ]


def read_fixed(texts: Sequence[str]) -> tuple[tuple[str, ...], list[InputValues]]:
    """The names in texts such as `grid` and `grid=1x28x42,1x14x14`, and for each variant the values that they give."""
    given: dict[str, list[torch.Tensor | None]] = {}
    for text in texts:
        name, equals, numbers = text.partition("=")
        given.setdefault(name.strip(), []).append(_numbers(text, numbers) if equals else None)
    count = max(map(len, given.values()), default=1)
    for name, values in given.items():
        if len(values) not in (1, count):
            raise SourceError(f"--fix gives {len(values)} values of {name} and {count} of another input; give as many")
    each = ({n: values[i % len(values)] for n, values in given.items()} for i in range(count))
    return tuple(given), [{n: v for n, v in values.items() if v is not None} for values in each]


def _numbers(text: str, numbers: str) -> torch.Tensor:
    """`1x28x42,1x14x14` are two rows of three numbers, `3,2` are two numbers."""
    if not re.fullmatch(r"-?\d+([x,]-?\d+)*", numbers):
        raise SourceError(f"--fix {text} does not read as INPUT=NUMBERS, such as grid=1x28x42,1x14x14 for two rows")
    rows = [[int(n) for n in row.split("x")] for row in numbers.split(",")]
    if len({len(row) for row in rows}) > 1:
        raise SourceError(f"--fix {text} has rows of different lengths")
    return torch.tensor(rows if "x" in numbers else [row[0] for row in rows])


# ---- one call


def _call(source: Source, values: InputValues) -> Variant:
    """An example call with these values: made by the source, or else the example with its own replaced."""
    example = source.calls[0]
    if not values:
        return example
    known = _tensors(source.model, example)
    values = {name: _fitted(value, known[name]) if name in known else value for name, value in values.items()}
    made = source.example_for(values)
    if made is None:
        for name, value in values.items():
            if name not in known:
                raise SourceError(f"there is no input `{name}` to fix; the model takes {', '.join(known)}")
            example = with_tensors(example, [known[name]], [value])
        return example
    found = _tensors(source.model, made)
    for name, value in values.items():
        if name not in found or not torch.equal(found[name], _fitted(value, found[name])):
            raise SourceError(f"the example inputs made for `{name}` = {value.tolist()} have other values of it")
    made = replace(made, name=example.name)
    return made if source.soft else with_shapes_of(source, made)


def call_arguments(model: nn.Module, call: Variant) -> tuple[Tree, list[torch.Tensor]]:
    """The arguments of a call by parameter, and the tensors among them.

    Raises SourceError where the model does not take them.
    """
    try:
        leaves, spec = flatten(bind(forward_parameters(model), call.args, call.kwargs))
    except TypeError as e:
        raise SourceError(f"the example inputs do not fit {type(model).__name__}.forward: {e}") from e
    return slotted(leaves, spec), [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _tensors(model: nn.Module, call: Variant) -> dict[str, torch.Tensor]:
    """The tensors of a call by the names of the model's inputs."""
    tree, tensors = call_arguments(model, call)
    return dict(zip(names(tree), tensors, strict=True))


def _fitted(value: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """InputValues with as many dimensions as the example's and its dtype: one row is a matrix, or the numbers in it."""
    while value.dim() > example.dim() and value.shape[0] == 1:
        value = value[0]
    while value.dim() < example.dim():
        value = value[None]
    return value.to(example.dtype)


def with_tensors(call: Variant, old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> Variant:
    """The call with tensors in place of others of it."""
    instead = {id(before): after for before, after in zip(old, new, strict=True)}
    leaves, spec = flatten((call.args, dict(call.kwargs)))
    args, kwargs = pytree.tree_unflatten([instead.get(id(leaf), leaf) for leaf in leaves], spec)
    return replace(call, args=args, kwargs=kwargs)


def _name(model: nn.Module, call: Variant, fixed: Sequence[str]) -> str:
    """A name that says the values of fixed inputs: `grid_1x28x42`."""
    tensors = _tensors(model, call)
    said = "_".join(f"{name}_{_text(tensors[name].tolist())}" for name in fixed if name in tensors)
    return re.sub(r"\W", "_", said)[:_LONGEST].rstrip("_") or call.name


def _text(values: Any) -> str:
    if not isinstance(values, list):
        return str(int(values))
    return ("_" if any(isinstance(v, list) for v in values) else "x").join(map(_text, values))


# ---- variants that are given with their inputs


def with_variants(source: Source, given: Mapping[str, Any]) -> Source:
    """The source with further calls by name: a tuple of positional arguments each, a dict of keywords, or both.

    `((x,), {"grid": grid})` is both, if the keys are arguments of the model.  The dynamic sizes are those of the
    example's call, for the inputs that a call has.
    """
    variants = (_variant(source, name, inputs) for name, inputs in given.items())
    return replace(source, variants=(*source.variants, *variants))


def _variant(source: Source, name: str, inputs: Any) -> Variant:
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in (source.program, *(v.name for v in source.variants)):
        raise SourceError(f"a variant is named {name!r}; files are named after it, so it must be a word of its own")
    if not isinstance(inputs, (tuple, list, Mapping)):
        raise SourceError(f"the variant {name} is a {type(inputs).__name__}; make it a tuple or a dict of arguments")
    return with_shapes_of(source, Variant(name, *_arguments(inputs, source.model)))


def _arguments(inputs: Any, model: nn.Module) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The positional arguments and the keywords of a call."""
    match inputs:
        case Mapping():
            return (), dict(inputs)
        case ((tuple() | list()) as args, Mapping() as kwargs):
            known = forward_parameters(model)
            others = any(p.kind is p.VAR_KEYWORD for p in known)
            if others or kwargs.keys() <= {p.name for p in known}:
                return tuple(args), dict(kwargs)
    return tuple(inputs), {}


def with_shapes_of(source: Source, call: Variant) -> Variant:
    """A call with the dynamic sizes of the source's example, for those of its inputs that the call has."""
    shapes = source.dynamic_shapes
    if isinstance(shapes, Mapping):
        present = {name.partition(".")[0] for name in _tensors(source.model, call)}
        shapes = {name: dims for name, dims in shapes.items() if name in present}
    return replace(call, dynamic_shapes=shapes)
