"""Classes of the user's own arguments and results, found by qualified name, or replaced by look-alikes."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections import namedtuple
from functools import cache, reduce
from types import SimpleNamespace

from runtime.errors import text_of


def find_class(path: str, fields: tuple[str, ...], by: str) -> type:
    """The class `module:QualName`; if it cannot be imported, a look-alike with the same `fields`, and a warning.

    `by`: how the manifest builds an instance, "position", "keyword", "attribute", "entries", "list" or "tuple".
    """
    module, _, name = path.partition(":")
    try:
        found = reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as e:  # importing a user's module may raise anything
        return _look_alike(path, fields, by, f"{type(e).__name__}: {text_of(e)}")
    return found if isinstance(found, type) else _look_alike(path, fields, by, "it is no class")


@cache  # one class and one warning a path
def _look_alike(path: str, fields: tuple[str, ...], by: str, reason: str) -> type:
    warnings.warn(f"cannot import {path} ({reason}); a class with the same fields stands in for it", stacklevel=2)
    name = path.rpartition(":")[2].rpartition(".")[2]
    match by:
        case "position":
            return namedtuple(name, fields)
        case "keyword":
            return dataclasses.make_dataclass(name, fields)
        case "entries" | "list" | "tuple":
            return type(name, (_BASES[by],), {})
        case _:
            return type(name, (SimpleNamespace,), {})


_BASES = {"entries": dict, "list": list, "tuple": tuple}
