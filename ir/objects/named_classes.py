"""Containers (pytrees) in graphs of earlier runs: a stand-in has a class's name and form, if that is not imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

from torch.utils._pytree import TreeSpec, treespec_leaf

from ir.objects.containers import Opening, opened_as, opening_of

_FORMS = (list, tuple, dict)
_TOLD = ("_fields", "__match_args__")  # the members that name the children of a container


@dataclass(frozen=True)
class NamedClass:
    """A class of a library or of the user, as its name and what pytrees tell containers apart by."""

    module: str
    name: str  # within the module, dotted
    form: type
    members: tuple[tuple[str, Any], ...]
    opening: Opening | None

    @classmethod
    def of(cls, known: type) -> NamedClass:
        form = next((form for form in _FORMS if issubclass(known, form)), object)
        members = tuple((name, getattr(known, name)) for name in _TOLD if hasattr(known, name))
        return cls(known.__module__, known.__qualname__, form, members, opening_of(known))

    def found(self) -> type:
        """The class where its module is imported, and else a stand-in, which is taken apart as it was."""
        module = sys.modules.get(self.module)
        known = reduce(lambda at, name: getattr(at, name, None), self.name.split("."), module)
        known = known if isinstance(known, type) else _stand_in(self)
        if self.opening is not None:
            opened_as(known, self.opening)
        return known


@cache
def _stand_in(named: NamedClass) -> type:
    members = {"__module__": named.module, "__qualname__": named.name, **dict(named.members)}
    return type(named.name.rpartition(".")[2], (named.form,), members)


def spec_parts(spec: TreeSpec) -> tuple[Any, ...]:
    """The class, the context and the children of containers; none of a leaf."""
    return () if spec.is_leaf() else (spec.type, spec.context, tuple(spec.children()))


def spec_again(of: Any = None, context: Any = None, children: Sequence[TreeSpec] | None = None) -> TreeSpec:
    """The containers of `spec_parts`."""
    return treespec_leaf() if children is None else TreeSpec(of, context, list(children))


def told_tree(spec: TreeSpec) -> tuple[Any, ...]:
    """The arguments of `tree_again` for some containers."""
    if spec.is_leaf():
        return ()
    return _told(spec.type), _told(spec.context), spec.children()


def tree_again(of: Any = None, context: Any = None, children: list[TreeSpec] | None = None) -> TreeSpec:
    """The containers of `told_tree`; without arguments, a leaf."""
    return treespec_leaf() if children is None else TreeSpec(_found(of), _found(context), children)


def _told(thing: Any) -> Any:
    plain = not isinstance(thing, type) or thing.__module__.partition(".")[0] in ("builtins", "collections", "torch")
    return thing if plain else NamedClass.of(thing)


def _found(thing: Any) -> Any:
    return thing.found() if isinstance(thing, NamedClass) else thing
