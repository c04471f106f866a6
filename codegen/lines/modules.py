"""The modules and tensors that a class holds: a tree, by how each is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TypeAlias

from codegen.structure.program import inside, join, relative
from ir.graph import Param, Value


@dataclass(frozen=True)
class StoredTensor:
    """A parameter or buffer."""

    value: Value

    @property
    def is_parameter(self) -> bool:
        return isinstance(self.value, Param) and not self.value.buffer


@dataclass(frozen=True)
class Constructed:
    """A module that one expression makes, and the parts that are added to it."""

    source: str
    added: Mapping[str, Member]


@dataclass(frozen=True)
class Rebuilt:
    """A module that is kept whole: an expression makes it without its tensors, which have names in it."""

    source: str
    tensors: Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Existing:
    """A module in one that an expression makes, and the parts that are added to it."""

    added: Mapping[str, Member]


@dataclass(frozen=True)
class PlainModule:
    """A module that holds others and does nothing."""

    parts: Mapping[str, Member]


@dataclass(frozen=True)
class ModuleSequence:
    """Modules under numbers; `sliced` where a loop goes over a part of them, `keyed` where the numbers are keys."""

    parts: Mapping[int, Member]
    sliced: bool
    keyed: bool = False


@dataclass(frozen=True)
class TensorSequence:
    """Parameters under the numbers from 0 on."""

    parts: Mapping[int, StoredTensor]


Member: TypeAlias = StoredTensor | Constructed | Rebuilt | Existing | PlainModule | ModuleSequence | TensorSequence


def parts_in(part: Member) -> Iterator[Member]:
    """A part and all in it."""
    yield part
    match part:
        case Constructed(added=parts) | Existing(parts) | PlainModule(parts) | ModuleSequence(parts):
            for inner in parts.values():
                yield from parts_in(inner)


@dataclass(frozen=True)
class Constructor:
    """An expression that makes a module, and the names of the tensors that this then has."""

    source: str
    names: frozenset[str]


@dataclass(frozen=True)
class Contents:
    """The contents of a class, by dotted names in it.

    `stored` are its tensors, `constructed` the modules that one expression makes, `rebuilt` those that are kept
    whole, `sliced` the lists of which a loop goes over a part, `keyed` those whose numbers are keys; "" is the class
    itself.
    """

    stored: Mapping[str, Value]
    constructed: Mapping[str, Constructor]
    rebuilt: Mapping[str, str]
    sliced: Sequence[str]
    keyed: Sequence[str] = ()

    def tree(self) -> PlainModule | ModuleSequence:
        """The class by what it holds."""
        parts = self._parts("", self._children())
        modules = numbered(parts)
        if modules and not any(isinstance(part, StoredTensor) for part in modules.values()):
            return ModuleSequence(modules, "" in self.sliced)
        return PlainModule(parts)

    def _children(self) -> Mapping[str, list[str]]:
        """The names in each module, in the order of the declarations."""
        maker = {join(path, name): path for path, made in self.constructed.items() for name in made.names}
        paths = (*self.sliced, *self.rebuilt, *(maker.get(name, name) for name in self.stored), *self.constructed)
        found: dict[str, dict[str, None]] = {}
        for path in filter(None, paths):
            for prefix in accumulate(path.split("."), join):
                owner, _, name = prefix.rpartition(".")
                found.setdefault(owner, {})[name] = None
        return {owner: list(names) for owner, names in found.items()}

    @cached_property
    def _existing(self) -> AbstractSet[str]:
        """The modules in those that an expression makes."""
        return {
            join(path, prefix)
            for path, made in self.constructed.items()
            for name in made.names
            for prefix in accumulate(name.split(".")[:-1], join)
        }

    def _parts(self, path: str, children: Mapping[str, list[str]]) -> dict[str, Member]:
        return {name: self._part(join(path, name), children) for name in children.get(path, ())}

    def _part(self, path: str, children: Mapping[str, list[str]]) -> Member:
        if path in self.rebuilt:
            tensors = {relative(n, path): StoredTensor(v) for n, v in self.stored.items() if inside(path, n)}
            return Rebuilt(self.rebuilt[path], tensors)
        parts = self._parts(path, children)
        if path in self._existing:
            return Existing(parts)
        if path in self.constructed:
            return Constructed(self.constructed[path].source, parts)
        if path in self.stored:
            return StoredTensor(self.stored[path])
        listed = numbered(parts)
        tensors = {number: part for number, part in listed.items() if isinstance(part, StoredTensor)}
        if tensors:
            return TensorSequence(tensors)
        return ModuleSequence(listed, path in self.sliced, path in self.keyed) if listed else PlainModule(parts)


def numbered(parts: Mapping[str, Member]) -> dict[int, Member]:
    """The parts of a list under their numbers, in order; nothing where they are no list."""
    if not all(name.isdigit() for name in parts):
        return {}
    listed = {int(name): parts[name] for name in sorted(parts, key=int)}
    tensors = [isinstance(part, StoredTensor) for part in parts.values()]
    if any(tensors) and not (all(tensors) and list(listed) == list(range(len(listed)))):
        return {}
    return listed
