"""Sizes computed from the symbols: the Python expressions of a manifest, compiled once."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from runtime.errors import ManifestError

_NAMES = {"max": max, "min": min, "math": math, "float": float, "round": round, "abs": abs}


@dataclass(frozen=True)
class SizeExpression:
    """A Python expression over the symbols, `math` and functions of numbers, such as `2*batch` or `height % 8 == 0`."""

    text: str
    symbols: tuple[str, ...]  # that it reads
    code: CodeType = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, symbols: Collection[str]) -> SizeExpression:
        """Raises ManifestError if `text` is no expression, or has a name that is not among the symbols."""
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, TypeError, ValueError) as e:
            raise ManifestError(f"the manifest holds {text!r}, which is no expression: {e}") from e
        names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        if unknown := names.keys() - set(symbols) - _NAMES.keys():
            raise ManifestError(f"the manifest holds {text!r}, but {min(unknown)!r} is not one of its symbols")
        return cls(text, tuple(name for name in names if name in symbols), compile(tree, text, "eval"))

    def __call__(self, sizes: Mapping[str, int]) -> Any:
        """The value for these values of the symbols."""
        if self.text in sizes:  # a symbol alone, as most are: without the time of `eval`
            return sizes[self.text]
        return eval(self.code, {"__builtins__": {}, **_NAMES, **sizes})
