"""Ways to write a call of an operator: `a + b`, `x.view(…)`, `F.linear(…)`, from its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from codegen.spelling.literals import argument_source, expr_source
from codegen.spelling.subscripts import is_subscript, subscript
from ir.graph import Call, Value

ATOM, POWER, UNARY, TIMES, PLUS, SHIFT, AND, XOR, OR, COMPARE = 10, 9, 8, 7, 6, 5, 4, 3, 2, 1


@dataclass(frozen=True)
class Text:
    """The source of an expression, and its precedence: the higher, the fewer parentheses."""

    source: str
    binds: int = ATOM

    def within(self, binds: int) -> str:
        return self.source if self.binds >= binds else f"({self.source})"


Write = Callable[[Value], Text]


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call, by their names in the operator's schema."""

    call: Call
    write: Write = field(default=lambda value: Text(value.name))
    sizes: Mapping[sympy.Basic, str] = field(default_factory=dict)  # that have a name of their own

    @property
    def names(self) -> list[str]:
        return [a.name for a in self.call.op._schema.arguments]

    def __getitem__(self, name: str) -> Any:
        """An argument by its name; what was left out has its default."""
        return self.call.arguments[name]

    def text(self, arg: Any) -> str:
        return argument_source(arg, lambda v: self.write(v).source, self.sizes)

    def operand(self, arg: Any) -> Text:
        """An operand of an operator such as +."""
        if isinstance(arg, Value):
            return self.write(arg)
        if isinstance(arg, sympy.Basic):
            named = isinstance(arg, sympy.Symbol) or arg in self.sizes
            return Text(expr_source(arg, self.sizes), ATOM if named else 0)
        negative = isinstance(arg, (int, float)) and arg < 0
        return Text(text := self.text(arg), UNARY if negative else POWER if "**" in text else ATOM)

    def rest(self, first: int, by_name: int = 99, skip: frozenset[str] = frozenset(), short: bool = False) -> list[str]:
        """Arguments from a place on, without defaults; from `by_name` on with their names.

        `short`: a list of equal numbers as one number.
        """
        schema = self.call.op._schema.arguments
        given = [(a, self[a.name]) for a in schema]
        texts: list[str] = []
        named = False
        for i, (a, value) in enumerate(given[first:], first):
            if a.name in skip or (a.has_default_value() and same(value, a.default_value)):
                named = True  # what follows a gap needs its name
                continue
            if short and isinstance(value, list) and all(x == value[0] for x in value):
                value = value[0]
            named = named or i >= by_name or a.kwarg_only
            texts.append(f"{a.name}={self.text(value)}" if named else self.text(value))
        return texts


def same(value: Any, default: Any) -> bool:
    """Whether an argument equals its default."""
    if isinstance(value, Value) or isinstance(default, Value):
        return False
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return list(value) == list(default)
    return type(value) is type(default) and value == default


# ---- ways to write


Writer = Callable[[Arguments], "Text | None"]


def infix(symbol: str, binds: int, swapped: bool = False) -> Writer:
    """`a + b`; an operator with a further argument (alpha) that is not its default is none."""

    def write(a: Arguments) -> Text | None:
        left, right, *further = a.names
        if any(not same(a[name], default(a, name)) for name in further):
            return None
        if swapped:
            left, right = right, left
        if not any(isinstance(x, Value) for x in (a[left], a[right])):
            return None
        tight = binds + (binds == COMPARE)  # a < b < c means something else
        return Text(f"{a.operand(a[left]).within(tight)} {symbol} {a.operand(a[right]).within(binds + 1)}", binds)

    return write


def default(a: Arguments, name: str) -> Any:
    return a.call.op._schema.arguments[a.names.index(name)].default_value


def prefix(symbol: str) -> Writer:
    return lambda a: Text(f"{symbol}{a.operand(a.call.args[0]).within(UNARY)}", UNARY)


def power(a: Arguments) -> Text:
    return Text(f"{a.operand(a.call.args[0]).within(ATOM)} ** {a.operand(a.call.args[1]).within(POWER)}", POWER)


def method(name: str, by_name: int = 99) -> Writer:
    """`x.name(…)`."""

    def write(a: Arguments) -> Text | None:
        if not isinstance(a.call.args[0], Value):
            return None
        return Text(f"{a.write(a.call.args[0]).within(ATOM)}.{name}({', '.join(a.rest(1, by_name))})")

    return write


def attribute(name: str) -> Writer:
    """`x.name`."""
    return lambda a: Text(f"{a.write(a.call.args[0]).within(ATOM)}.{name}")


def reduction(name: str) -> Writer:
    """`x.mean(-1, keepdim=True)`: one dimension is no list."""

    def write(a: Arguments) -> Text:
        given = list(a.call.args[1:2])
        dims = [a.text(d[0] if isinstance(d, list) and len(d) == 1 else d) for d in given if d is not None]
        return Text(f"{a.write(a.call.args[0]).within(ATOM)}.{name}({', '.join([*dims, *a.rest(2, by_name=2)])})")

    return write


def spread(name: str) -> Writer:
    """`x.view(2, -1)`: a list of sizes or dimensions as arguments."""

    def write(a: Arguments) -> Text | None:
        items = a.call.args[1]
        if not isinstance(items, (list, tuple)) or not items or len(a.rest(2)) > 0:
            return method(name)(a)
        return Text(f"{a.write(a.call.args[0]).within(ATOM)}.{name}({', '.join(map(a.text, items))})")

    return write


def function(name: str, by_name: int = 99, skip: Sequence[str] = (), short: bool = False) -> Writer:
    """`torch.name(…)`."""
    return lambda a: Text(f"{name}({', '.join(a.rest(0, by_name, frozenset(skip), short))})")


def activation(name: str) -> Writer:
    """`F.elu(x)`: 1.0 is the default 1, as the operator computes with fractions."""

    def write(a: Arguments) -> Text:
        usual = {n for n in a.names[1:] if isinstance(a[n], float) and a[n] == default(a, n)}
        return Text(f"F.{name}({', '.join(a.rest(0, skip=frozenset(usual)))})")

    return write


def convolution(name: str) -> Writer:
    """Strides and the like as one number where all are equal."""

    def write(a: Arguments) -> Text:
        texts = a.rest(0, 99)[: 3 if isinstance(a["bias"], Value) else 2]
        for key in a.names[3:]:
            value, usual = a[key], default(a, key)
            if isinstance(value, (list, tuple)) and len(set(map(str, value))) == 1:
                value = value[0]
            if not same(value, usual[0] if isinstance(usual, list) else usual):
                texts.append(f"{key}={a.text(value)}")
        return Text(f"{name}({', '.join(texts)})")

    return write


def embedding(a: Arguments) -> Text | None:
    texts = [a.text(a["indices"]), a.text(a["weight"])]
    if a["padding_idx"] != -1:
        texts.append(f"padding_idx={a.text(a['padding_idx'])}")
    if a["scale_grad_by_freq"] or a["sparse"]:
        return None
    return Text(f"F.embedding({', '.join(texts)})")


def batch_norm(a: Arguments) -> Text | None:
    if a["training"] is not False:
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias")
    texts = [a.text(a[name]) for name in names]
    return Text(f"F.batch_norm({', '.join(texts)}, eps={a.text(a['eps'])})")


def interpolate(mode: str) -> Writer:
    """`F.interpolate(…)` to a size or by factors, which are one number where all are equal."""

    def write(a: Arguments) -> Text | None:
        size, factors = a["output_size"], a["scale_factors"]
        if (size is None) == (factors is None):
            return None
        factor = factors[0] if factors and len(set(factors)) == 1 else factors
        how = f"size={a.text(size)}" if factors is None else f"scale_factor={a.text(factor)}"
        further = [] if mode == "nearest" else [f'mode="{mode}"']
        further += ["align_corners=True"] if "align_corners" in a.names and a["align_corners"] else []
        return Text(f"F.interpolate({', '.join([a.text(a['input']), how, *further])})")

    return write


def subscripted(a: Arguments) -> Text | None:
    """`x[:, 1:5]`."""
    found = subscript([a.call], a.text) if is_subscript(a.call) else None
    return Text(f"{a.write(a['self']).within(ATOM)}[{found}]") if found else None


def index(a: Arguments) -> Text | None:
    """`x[:, rows]`; a tensor without dimensions would be read as a number."""
    if any(i is not None and not (isinstance(i, Value) and i.type.shape) for i in a["indices"]):
        return None
    parts = [":" if i is None else a.text(i) for i in a["indices"]]
    return Text(f"{a.write(a['self']).within(ATOM)}[{', '.join(parts)}]")


def store(name: str) -> Writer:
    """`pool.index_put_((page, place), new)`."""

    def write(a: Arguments) -> Text | None:
        if any(not isinstance(i, Value) for i in a["indices"]):
            return None
        indices = ", ".join(map(a.text, a["indices"])) + "," * (len(a["indices"]) == 1)
        return Text(f"{a.write(a['self']).within(ATOM)}.{name}(({indices}), {', '.join(a.rest(2, by_name=3))})")

    return write


def padding(a: Arguments) -> Text:
    """`F.pad(x, [1, 1])`; a mode that is not constant takes no value."""
    constant = (mode := a["mode"]) == "constant"
    how = ([] if constant else [f'mode="{mode}"']) + a.rest(3, by_name=3) * constant
    return Text(f"F.pad({', '.join([a.text(a['self']), a.text(a['pad']), *how])})")


def grid_sample(a: Arguments) -> Text:
    """`F.grid_sample(x, grid, align_corners=False)`, with the names of its modes."""
    mode = ("bilinear", "nearest", "bicubic")[a["interpolation_mode"]]
    padding = ("zeros", "border", "reflection")[a["padding_mode"]]
    texts = [a.text(a["input"]), a.text(a["grid"])]
    texts += [f'mode="{mode}"'] * (mode != "bilinear") + [f'padding_mode="{padding}"'] * (padding != "zeros")
    texts.append(f"align_corners={a['align_corners']}")
    return Text(f"F.grid_sample({', '.join(texts)})")


def broadcast(a: Arguments) -> Text:
    """`torch.broadcast_tensors(x, y)`."""
    return Text(f"torch.broadcast_tensors({', '.join(map(a.text, a['tensors']))})")


def converted(a: Arguments) -> Text:
    return Text(f"{a.write(a['self']).within(ATOM)}.to({', '.join(a.rest(1))})")
