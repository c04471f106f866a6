"""A seed -> a random module, as the source of a model file."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import indent
from typing import Any

import torch

from tests.fuzz.draft import Draft, NoValueError, Statement
from tests.fuzz.grammar import RULES, Effect, Many

SIZES = ((3, 5), (4, 8), (2, 6))  # batch and sequence: of the example, and others
TRIES = 200

INPUTS = {
    "x": "torch.randn(batch, seq, 8)",
    "y": "torch.randn(batch, seq, 8)",
    "row": "torch.randn(batch, 8)",
    "grid": "torch.randn(batch, 4, 6)",
    "wide": "torch.randn(batch, seq, 8, dtype=torch.float64)",
    "half": "torch.randn(batch, seq, 4).bfloat16()",
    "ids": "torch.randint(0, 9, (batch, seq))",
    "mask": "torch.rand(batch, seq) > 0.3",
    "steps": "torch.arange(seq)",
}


@dataclass(frozen=True)
class Program:
    """A module as text: its inputs, statements and results, and into how many stages it is cut."""

    seed: int
    inputs: tuple[str, ...]
    dynamic: tuple[str, ...]  # of "batch" and "seq"
    statements: tuple[Statement, ...]
    returns: str
    stages: int
    by_name: bool = False  # whether it is called with keyword arguments

    @property
    def source(self) -> str:
        """A model file: `model`, `example_inputs`, `dynamic_shapes`, and how the module is called otherwise."""
        init = [line for s in self.statements for line in s.init]
        classes = "".join(f"{s.classes}\n\n" for s in self.statements if s.classes)
        made = ", ".join(f'"{name}": {INPUTS[name]}' for name in self.inputs)
        values = "" if self.by_name else ".values()"
        returned = f"{{{made}}}" if self.by_name else f"tuple({{{made}}}{values})"
        model = class_source("Model", self.inputs, init, self.statements, self.returns)
        return f"""\
import torch
import torch.nn.functional as F
from torch import nn


{classes}{model}

def model():
    torch.manual_seed({self.seed})
    return Model().eval()


def inputs(batch, seq, seed):
    torch.manual_seed(seed)
    return {returned}


example_inputs = inputs({SIZES[0][0]}, {SIZES[0][1]}, {self.seed})
dynamic_shapes = {self._dynamic_shapes()!r}
sizes = {self._sizes()!r}
stages = {self.stages}
"""

    def _dynamic_shapes(self) -> dict[str, dict[int, str]] | None:
        dims = {name: dims_of(INPUTS[name], self.dynamic) for name in self.inputs}
        return {name: d for name, d in dims.items() if d} or None

    def _sizes(self) -> list[tuple[int, int]]:
        """The sizes to call it with, those of the example first."""
        (batch, seq), *others = (*SIZES, (1, 7), (5, 3))
        names = {dim for dims in (self._dynamic_shapes() or {}).values() for dim in dims.values()}
        other = [(b if "batch" in names else batch, s if "seq" in names else seq) for b, s in others]
        return [(batch, seq), *sorted(set(other) - {(batch, seq)})]

    def without(self, index: int) -> Program:
        return replace(self, statements=self.statements[:index] + self.statements[index + 1 :])


def class_source(
    name: str, inputs: Sequence[str], init: Sequence[str], statements: Sequence[Statement], returns: str
) -> str:
    made = "\n".join(["super().__init__()", *init])
    body = "\n".join([*(s.code for s in statements), f"return {returns}"])
    return f"""\
class {name}(nn.Module):
    def __init__(self):
{indent(made, " " * 8)}

    def forward(self, {", ".join(inputs)}):
{indent(body, " " * 8)}
"""


def dims_of(made: str, dynamic: Sequence[str]) -> dict[int, str]:
    """The dimensions of an input that vary, from the expression that makes it."""
    sizes = re.search(r"\(+([^()]*)\)", made.replace("(0, 9, ", ""))
    parts = [part.strip() for part in sizes[1].split(",")] if sizes else []
    return {i: part for i, part in enumerate(parts) if part in dynamic}


def generate(seed: int) -> Program:
    """The module of a seed, always the same."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    inputs = ("x", *sorted(rng.sample(sorted(INPUTS.keys() - {"x"}), rng.choice([0, 1, 1, 2]))))
    values = [{name: eval(INPUTS[name], dict(torch=torch, batch=b, seq=s)) for name in inputs} for b, s in SIZES]
    draft = Draft(rng, [dict(v) for v in values], names=list(inputs))
    grow(draft, rng.randrange(5, 16), inner=True)
    return Program(
        seed=seed,
        inputs=inputs,
        dynamic=rng.choice([(), ("batch",), ("batch", "seq"), ("batch", "seq")]),
        statements=tuple(draft.statements),
        returns=results(draft),
        stages=rng.choice([2, 2, 3, 4]),
        by_name=rng.random() < 0.3,
    )


def grow(draft: Draft, length: int, inner: bool = False) -> None:
    """Add statements that run at all sizes until there are `length` of them."""
    weights, rules = zip(*RULES, strict=True)
    for _ in range(TRIES):
        if len(draft.statements) >= length:
            return
        draft.init, draft.classes = [], ""
        try:
            if inner and draft.rng.random() < 0.05:
                code, made = inner_call(draft)
            else:
                code, made = assigned(draft, draft.rng.choices(rules, weights)[0](draft))
        except (NoValueError, IndexError, ValueError):
            continue
        draft.add(code, made)


def assigned(draft: Draft, rule: str | Many | Effect) -> tuple[str, list[str]]:
    """A statement, and the names that it assigns."""
    name = draft.fresh()
    match rule:
        case Effect(text):
            return text, list(dict.fromkeys(re.findall(r"^ *(v\d+) = ", text, re.MULTILINE)))
        case Many(count, text):
            names = [f"{name}{'abc'[i]}" for i in range(count)]
            return f"{', '.join(names)} = {text}", names
        case text:
            return f"{name} = {text}", [name]


def inner_call(draft: Draft) -> tuple[str, list[str]]:
    """A module of our own, called once or twice."""
    given = [draft.real() for _ in range(draft.one_of(1, 2))]
    names = ["a", "b"][: len(given)]
    values = [{n: v[x] for n, x in zip(names, given, strict=True)} for v in draft.values]
    inside = Draft(draft.rng, values, names=list(names))
    grow(inside, draft.one_of(2, 3, 4))
    cls = f"Inner{len(draft.statements)}"
    returns = inside.names[-1]
    init = [line for s in inside.statements for line in s.init]
    draft.classes = class_source(cls, names, init, inside.statements, returns)
    module, name = draft.attribute(f"{cls}()"), draft.fresh()
    call = f"{module}({', '.join(given)})"
    if draft.rng.random() < 0.5:
        return f"{name} = {call} + {module}({', '.join(draft.like(x) for x in given)})", [name]
    return f"{name} = {call}", [name]


def results(draft: Draft) -> str:
    """What the module returns: late values and unread ones, in some container."""
    unread = list(unread_names(draft))
    names = list(dict.fromkeys([*unread[-3:], draft.any(), draft.any()]))[: draft.one_of(1, 2, 3, 4)]
    text = ", ".join(names)
    pairs = ", ".join(f'"{name}": {name}' for name in names)
    return draft.one_of(
        names[0] if len(names) == 1 else f"({text})",
        f"({text},)",
        f"[{text}]",
        f"{{{pairs}}}",
        f'{{"out": ({text},), "size": {names[0]}.shape[0], "none": None, "name": "text"}}',
        f"({text}, 3, {draft.size(names[0], 0) if draft[names[0]].dim() else 2.5})",
    )


def unread_names(draft: Draft) -> Iterator[str]:
    for i, name in enumerate(draft.names):
        read = any(re.search(rf"\b{name}\b", s.code) for s in draft.statements if name not in s.made)
        if not read or i == len(draft.names) - 1:
            yield name


def inputs_of(module: Any, sizes: tuple[int, int], seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of a generated file."""
    made = module.inputs(*sizes, seed)
    return ((), made) if isinstance(made, dict) else (made, {})
