"""Dotted names of modules and tensors as expressions: `h.0.attn` is `self.h[0].attn`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from codegen.spelling.expressions import Attribute, Expression, Subscript, Variable
from codegen.structure.program import join, relative


@dataclass(frozen=True)
class Paths:
    """The tree of a stage's modules, and which of them are lists.

    `stored` are names of tensors, `called` of modules; `keyed` are lists whose modules have their numbers as keys.
    """

    stored: frozenset[str]
    called: frozenset[str]
    keyed: frozenset[str] = frozenset()

    @cached_property
    def _children(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name in (*self.stored, *self.called):
            parts = name.split(".")
            for i, part in enumerate(parts):
                found.setdefault(".".join(parts[:i]), set()).add(part)
        return found

    @cached_property
    def numbers(self) -> dict[str, tuple[int, ...]]:
        """The numbers in each list of modules, and in each list of parameters that starts at 0."""
        found: dict[str, tuple[int, ...]] = {}
        for path, parts in self._children.items():
            if all(part.isdigit() for part in parts):
                tensors = [join(path, part) in self.stored for part in parts]
                numbers = tuple(sorted(map(int, parts)))
                if not any(tensors) or (all(tensors) and numbers == tuple(range(len(numbers))) and path):
                    found[path] = numbers
        return found

    def reach(self, owner: Expression, at: str, to: str) -> Expression:
        """The module or tensor with the name `to`; `owner` is the module `at`, in which it stands."""
        for part in relative(to, at).split(".") if to != at else ():
            owner = self.step(owner, at, part)
            at = join(at, part)
        return owner

    def step(self, owner: Expression, at: str, part: str) -> Expression:
        """The module or tensor that the module `at` holds under the name `part`."""
        if at in self.numbers:
            return Subscript(owner, part if at in self.keyed else int(part))
        if (at, part) == ("", "load"):
            return own_load(tensor=part in self.stored)
        return Attribute(owner, part)


def own_load(tensor: bool) -> Expression:
    """The module or tensor that the model calls `load`, which is also a method of every stage."""
    return Subscript(Attribute(Variable("self"), "_parameters" if tensor else "_modules"), "load")
