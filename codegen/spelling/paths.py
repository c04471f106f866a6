"""Dotted names of modules and weights as Python expressions."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from functools import cached_property

from codegen.structure.program import join, relative


@dataclass(frozen=True)
class Paths:
    """Knows which modules of a stage are lists.  `stored` are names of tensors, `called` of modules."""

    stored: frozenset[str]
    called: frozenset[str]

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

    def reach(self, owner: str, at: str, to: str) -> str:
        """An expression for what has the name `to`; `owner` is that for the module `at`, in which it stands."""
        for part in relative(to, at).split(".") if to != at else ():
            owner = self.step(owner, at, part)
            at = join(at, part)
        return owner

    def step(self, owner: str, at: str, part: str) -> str:
        """From a module to what it holds under a name."""
        if at in self.numbers:
            return f"{owner}[{part}]"
        if (at, part) == ("", "load"):
            return own_load(tensor=part in self.stored)
        return attribute(owner, part)


def attribute(owner: str, part: str) -> str:
    plain = part.isidentifier() and not keyword.iskeyword(part)
    return f"{owner}.{part}" if plain else f'getattr({owner}, "{part}")'


def own_load(tensor: bool) -> str:
    """What the model calls `load`, which is also the name of a method of every stage."""
    return f'self._{"parameters" if tensor else "modules"}["load"]'
