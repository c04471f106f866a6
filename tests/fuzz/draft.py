"""A random module while it grows: its statements, and what they compute at a few sizes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

LARGEST = 3000  # elements of a value
Test = Callable[[torch.Tensor], bool]


class NoValueError(Exception):
    """No value of the module so far is what an operator needs."""


@dataclass(frozen=True)
class Statement:
    """A line or a block of `forward`, with the lines of `__init__` that it needs."""

    code: str
    init: tuple[str, ...] = ()
    made: tuple[str, ...] = ()  # the names that it assigns
    classes: str = ""  # the source of classes that `init` names


@dataclass
class Draft:
    """Statements so far, and for each choice of sizes the values of all names, `self` among them."""

    rng: random.Random
    values: list[dict[str, Any]]
    prefix: str = ""  # of attributes and classes, so that those of inner modules differ
    statements: list[Statement] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of tensors, in the order in which they were made
    init: list[str] = field(default_factory=list)  # of the statement that is being made
    classes: str = ""
    attributes: int = 0

    def __post_init__(self) -> None:
        for values in self.values:
            values["self"] = nn.Module()
        self.space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}

    # ---- choosing

    def any(self, test: Test = lambda _: True) -> str:
        """The name of a tensor, rather a late one."""
        fitting = [name for name in self.names if test(self[name])]
        if not fitting:
            raise NoValueError
        return fitting[-1 - min(int(self.rng.expovariate(0.4)), len(fitting) - 1)]

    def real(self, rank: int | None = None, least: int = 1, test: Test = lambda _: True) -> str:
        """A tensor of floating-point numbers."""
        return self.any(lambda t: t.is_floating_point() and ranked(t, rank, least) and test(t))

    def whole(self, rank: int | None = None, least: int = 0) -> str:
        return self.any(lambda t: t.dtype == torch.int64 and ranked(t, rank, least))

    def bool(self) -> str:
        return self.any(lambda t: t.dtype == torch.bool)

    def like(self, name: str) -> str:
        """A tensor of the shape and dtype of another at all sizes, not that one if there are more."""
        return self._other(name, lambda n: self.shapes(n) == self.shapes(name) and self[n].dtype == self[name].dtype)

    def beside(self, name: str) -> str:
        """A tensor of the dtype that broadcasts with another."""
        return self._other(name, lambda n: self[n].dtype == self[name].dtype and broadcast(self[n], self[name]))

    def _other(self, name: str, test: Callable[[str], bool]) -> str:
        fitting = [n for n in self.names if n != name and test(n)]
        return self.rng.choice(fitting) if fitting else name

    def dim(self, name: str) -> int:
        rank = self[name].dim()
        return self.rng.randrange(-rank, rank)

    def size(self, name: str, dim: int) -> str:
        """The size of a dimension, in words where it varies."""
        fixed = len({shape[dim] for shape in self.shapes(name)}) == 1
        if fixed and self.rng.random() < 0.6:
            return str(self[name].shape[dim])
        return self.rng.choice([f"{name}.shape[{dim}]", f"{name}.size({dim})"])

    def fixed(self, name: str, dim: int) -> int:
        """A size that does not vary."""
        sizes = {shape[dim] for shape in self.shapes(name)}
        if len(sizes) > 1:
            raise NoValueError
        return sizes.pop()

    def number(self) -> float:
        return self.rng.choice([-1.5, -0.5, 0.25, 0.5, 1.5, 2.0, 3.0])

    def one_of(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def shapes(self, name: str) -> list[torch.Size]:
        return [values[name].shape for values in self.values]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[0][name]

    # ---- adding

    def attribute(self, made: str) -> str:
        """An attribute that `__init__` sets to an expression."""
        self.attributes += 1
        name = f"self.{self.prefix}a{self.attributes}"
        self.init.append(f"{name} = {made}")
        return name

    def buffer(self, made: str, persistent: bool = True) -> str:
        self.attributes += 1
        name = f"{self.prefix}a{self.attributes}"
        self.init.append(f'self.register_buffer("{name}", {made}, persistent={persistent})')
        return f"self.{name}"

    def module(self, made: str) -> str:
        """A submodule: a new one, or one of the same kind that is there."""
        same = [line.partition(" = ")[0] for s in self.statements for line in s.init if line.endswith(f" = {made}")]
        return self.rng.choice(same) if same and self.rng.random() < 0.4 else self.attribute(made)

    def fresh(self) -> str:
        return f"v{len(self.statements)}"

    def add(self, code: str, made: Sequence[str] = ()) -> bool:
        """Add a statement if it runs at all sizes.  `made` are the names that it assigns."""
        used = set(re.findall(r"\w+", code))  # a rule makes attributes for all its choices
        init = [line for line in self.init if attribute_of(line) in used]
        statement = Statement(code, tuple(init), tuple(made), self.classes)
        self.init, self.classes = [], ""
        before = [dict(values) for values in self.values]
        try:
            for values in self.values:
                run(statement, self.space, values)
            if not all(sound(values[name]) for values in self.values for name in made):
                raise NoValueError
        except Exception:
            self.values = before
            return False
        self.statements.append(statement)
        tensors = [name for name in made if isinstance(self[name], torch.Tensor)]
        self.names = [*(n for n in self.names if n not in tensors), *tensors]
        return True


def attribute_of(line: str) -> str:
    """The attribute that a line of `__init__` sets."""
    return line.split('"')[1] if line.startswith("self.register_buffer") else line.split(".")[1].split(" ")[0]


def run(statement: Statement, space: dict[str, Any], values: dict[str, Any]) -> None:
    exec(statement.classes, space)
    for line in statement.init:
        exec(line, space, values)
    with torch.no_grad():
        exec(statement.code, space, values)


def sound(value: Any) -> bool:
    """Small, not empty, and of finite numbers, so that a difference shows."""
    if not isinstance(value, torch.Tensor):
        return True
    return 0 < value.numel() <= LARGEST and bool(value.isfinite().all()) and bool((value.abs() < 1e4).all())


def ranked(tensor: torch.Tensor, rank: int | None, least: int) -> bool:
    return tensor.dim() >= least if rank is None else tensor.dim() == rank


def broadcast(a: torch.Tensor, b: torch.Tensor) -> bool:
    pairs = zip(reversed(a.shape), reversed(b.shape), strict=False)
    return all(m == n or 1 in (m, n) for m, n in pairs)
