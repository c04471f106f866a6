"""The nodes of a tree: containers around tensors, sizes and fixed values.

A node can `build` a value from tensors and sizes, and can find the `leaves` of a value that a caller
passes: its tensors and sizes, each with a dotted name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any, Protocol

import torch

from runtime.call.expressions import SizeExpression
from runtime.errors import InputError


@dataclass(frozen=True)
class TreeLeaf:
    """The value that a caller passed for a TensorSlot or a Size."""

    name: str  # "past.layers.0.keys"
    node: TensorSlot | Size
    value: Any


class TreeNode(Protocol):
    """A node of a tree."""

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        """The value, with its tensors and sizes filled in."""
        ...

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        """The tensors and sizes in `value`.  Raises InputError if its containers or fixed values differ."""
        ...


@dataclass(frozen=True)
class TensorSlot:
    """A tensor."""

    index: int

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        return tensors[self.index]

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        yield TreeLeaf(name, self, value)


@dataclass(frozen=True)
class Size:
    """A number computed from the symbols."""

    expression: SizeExpression

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> int | float | bool:
        return self.expression(sizes)

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        yield TreeLeaf(name, self, value)


@dataclass(frozen=True)
class Fixed:
    """A constant: its value when the model was captured."""

    value: Any

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        return self.value

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        # Types must agree (1 is neither True nor 1.0: a model may branch on it); nan equals nan by repr.
        same = type(value) is type(self.value) and (value == self.value or repr(value) == repr(self.value))
        if not same:
            raise InputError(
                f"argument `{name}` was captured as {self.value!r} and is fixed; got {describe_value(value)}",
                "compile again with the value you want",
            )
        return iter(())


@dataclass(frozen=True)
class FixedValues:
    """A tensor whose values decided shapes when the model was captured; no stage receives it."""

    tensor: torch.Tensor

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        return self.tensor.clone()

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        if not self._is_same(value):
            raise InputError(
                f"argument `{name}` is fixed at {_values(self.tensor)}, as its values decide shapes; got "
                f"{_values(value)}",
                "compile again with the values you want",
            )
        return iter(())

    def _is_same(self, value: Any) -> bool:
        if not isinstance(value, torch.Tensor) or value.is_meta or value.dtype != self.tensor.dtype:
            return False
        return torch.equal(value.cpu(), self.tensor)


def _values(value: Any) -> str:
    """The type of a tensor, and its values where they are few."""
    if not isinstance(value, torch.Tensor) or value.is_meta or value.numel() > 64:
        return describe_value(value)
    return f"{value.tolist()} ({describe_value(value)})"


@dataclass(frozen=True)
class Items:
    """A tuple or a list, or one of a class of its own.  Callers may pass a plain one for the latter."""

    cls: type[tuple] | type[list]
    items: tuple[TreeNode, ...]

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        return self.cls([item.build(tensors, sizes) for item in self.items])

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        plain = list if issubclass(self.cls, list) else tuple
        if not (isinstance(value, self.cls) or type(value) is plain) or len(value) != len(self.items):
            wanted = f"a {self.cls.__name__} of {len(self.items)}"
            raise InputError(f"argument `{name}`: expected {wanted}, got {describe_value(value)}")
        for i, (item, part) in enumerate(zip(self.items, value, strict=True)):
            yield from item.leaves(part, f"{name}.{i}")


@dataclass(frozen=True)
class Entries:
    """A mapping.  Callers may pass any mapping with the same keys."""

    make: Callable[[], MutableMapping]
    entries: tuple[tuple[Any, TreeNode], ...]

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        made = self.make()
        made.update((key, node.build(tensors, sizes)) for key, node in self.entries)
        return made

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        if not isinstance(value, Mapping):
            raise InputError(f"argument `{name}`: expected a mapping, got {describe_value(value)}")
        _compare_keys(name, [key for key, _ in self.entries], value)
        for key, node in self.entries:
            yield from node.leaves(value[key], f"{name}.{key}")


@dataclass(frozen=True)
class Fields:
    """An object with named fields: a namedtuple, a dataclass, or anything with attributes."""

    cls: type[Any]
    by: str
    fields: tuple[tuple[str, TreeNode], ...]

    def build(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        values = {name: node.build(tensors, sizes) for name, node in self.fields}
        match self.by:
            case "position":
                return self.cls(*values.values())
            case "keyword":
                return self.cls(**values)
            case _:
                return _with_attributes(self.cls, values)

    def leaves(self, value: Any, name: str) -> Iterator[TreeLeaf]:
        # The same name is enough: the class may be a look-alike, or the user's file imported under another name.
        if not isinstance(value, self.cls) and type(value).__name__ != self.cls.__name__:
            raise InputError(f"argument `{name}`: expected class {self.cls.__name__}, got {describe_value(value)}")
        given = _attributes(value) if self.by == "attribute" else {f: getattr(value, f) for f in _field_names(value)}
        known = [field for field, _ in self.fields]
        _compare_keys(name, known, [field for field, part in given.items() if field in known or part is not None])
        for field, node in self.fields:
            yield from node.leaves(given[field], f"{name}.{field}")


def slots(node: TreeNode) -> Iterator[int]:
    """The indices of the tensors below a node."""
    match node:
        case TensorSlot(index):
            yield index
        case Items(_, items):
            for item in items:
                yield from slots(item)
        case Entries(_, entries) | Fields(_, _, entries):
            for _, child in entries:
                yield from slots(child)


def fixed_values(node: TreeNode, name: str) -> Iterator[tuple[str, FixedValues]]:
    """The fixed tensors below a node, each with its dotted name."""
    match node:
        case FixedValues():
            yield name, node
        case Items(_, items):
            for i, item in enumerate(items):
                yield from fixed_values(item, f"{name}.{i}")
        case Entries(_, entries) | Fields(_, _, entries):
            for key, child in entries:
                yield from fixed_values(child, f"{name}.{key}")


def describe_value(value: Any) -> str:
    """A value in a few words, for a message: `float32[2, 8]`, `a list of 3`, `None`."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        return repr(value) if len(repr(value)) < 80 else repr(value)[:76] + " ..."
    if type(value) in (tuple, list, dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"class {type(value).__name__}"


def _field_names(value: Any) -> Collection[str]:
    if isinstance(value, tuple):
        return getattr(value, "_fields", ())
    return [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else _attributes(value)


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object, in slots and in `__dict__`."""
    classes = [cls for cls in reversed(type(value).__mro__) if "__slots__" in vars(cls)]
    names = [name for cls in classes for name, x in vars(cls).items() if isinstance(x, MemberDescriptorType)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)} | getattr(value, "__dict__", {})


def _with_attributes(cls: Any, values: Mapping[str, Any]) -> Any:
    """An object with these attributes, made without a call of its class."""
    try:
        made: Any = object.__new__(cls)
    except TypeError:  # a class derived from one that is written in C
        made = cls.__new__(cls)
    for name, value in values.items():
        if isinstance(getattr(cls, name, None), MemberDescriptorType):
            object.__setattr__(made, name, value)
        else:
            vars(made)[name] = value
    return made


def _compare_keys(name: str, wanted: Collection[Any], given: Collection[Any]) -> None:
    for key in wanted:
        if key not in given:
            raise InputError(f"argument `{name}` has no `{key}`; it had one when the model was captured")
    for key in given:
        if key not in wanted:
            raise InputError(f"argument `{name}` has a `{key}`; it had none when the model was captured")
