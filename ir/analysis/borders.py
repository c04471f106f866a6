"""Names of values: unique identifiers, and as the user's source has them where values cross between stages."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field, replace

from ir.graph import Call, Graph, Transfer, Value
from ir.operators.facts import PART_WRITES, Elements, aten_name, rearrangement
from ir.operators.higher_order import higher_order_of, is_higher_order

_RESERVED = frozenset({"torch", "nn", "aten", "self", "device", "math", "F"})


@dataclass
class Namer:
    """Gives each wish a name that no other has: `h.0.weight` -> h_0_weight, again -> h_0_weight_1."""

    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= _RESERVED

    def __call__(self, wish: str) -> str:
        stem = re.sub(r"\W", "_", wish) or "value"
        if stem[0].isdigit() or keyword.iskeyword(stem):
            stem = f"v_{stem}"
        name, count = stem, 0
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name


def repeated(value: Value, stage: int, namer: Namer) -> Value:
    """A value of another stage, received or computed again: `x` -> `x_on1`."""
    return replace(value, name=namer(f"{value.name}_on{stage}"), copy_of=value.copy_of or value.name)


def name_borders(graph: Graph) -> Graph:
    """The graph with better names for what stages send, and for its outputs; others give way to those."""
    crossing = dict.fromkeys([n.value for n in graph.nodes if isinstance(n, Transfer)] + list(graph.outputs))
    wishes = {v: wish for v in crossing if not v.copy_of and (wish := source_name(graph, v))}
    others = [v for n in graph.nodes if isinstance(n, Call) for v in n.results if v not in wishes and not v.copy_of]
    namer = Namer(graph.names - {v.name for v in (*wishes, *others)})
    new = {value.name: namer(wish) for value, wish in wishes.items()}
    new |= {value.name: namer(value.name) for value in others}

    def renamed(value: Value) -> Value:
        if value.copy_of in new:
            return replace(value, copy_of=new[value.copy_of])
        return replace(value, name=new[value.name]) if value.name in new else value

    return graph.map_values(renamed)


def source_name(graph: Graph, value: Value) -> str:
    """The name that the user's source gives a value where it is made, or else its role; "" for nothing.

    The variable is that of the innermost module that has one, then that of the value which this one shows in another
    form, or with another part, then that of a function which the module calls.  The role is the name of the layer, or
    the operator's noun.
    """
    maker = graph.producer.get(value)
    if not isinstance(maker, Call):
        return ""
    *modules, function = value.variables or ("",)
    named = next((name for name in reversed(modules) if name), "")
    if not named and (_shows_its_operand(maker) or aten_name(maker.op) in PART_WRITES):
        named = source_name(graph, maker.operands[0])
    return named or function or (_layer(maker) or noun(maker) if maker.where.frames else "")


def _layer(call: Call) -> str:
    """The name of the layer of torch's own that a call is made in: `model.layers.0.mlp.gate_proj` -> gate_proj."""
    return word(call.where.module) if not call.where.frames[-1].line else ""


def word(path: str) -> str:
    """The last part of a path that is a name: `layers.0` -> layers."""
    return next((part for part in reversed(path.split(".")) if part.isidentifier()), "")


def noun(call: Call) -> str:
    """A noun for the result of an operator."""
    op = _operator(call)
    return _NOUNS.get(op, op.strip("_"))


def _operator(call: Call) -> str:
    if is_higher_order(call):
        return higher_order_of(call).name
    return call.op._schema.name.rpartition("::")[2]


def _shows_its_operand(call: Call) -> bool:
    """Whether a result has all elements of the first operand, in another form."""
    found = rearrangement(call.op)
    return found is not None and found.elements not in (Elements.SLICED, Elements.SELECTED)


_NOUNS = {
    "add": "total",
    "sub": "difference",
    "mul": "product",
    "div": "quotient",
    "matmul": "product",
    "bmm": "product",
    "pow": "power",
    "__and__": "both",
    "__or__": "either",
    "le": "mask",
    "lt": "mask",
    "ge": "mask",
    "gt": "mask",
    "eq": "equal",
    "ne": "unequal",
    "scaled_dot_product_attention": "attention",
    "to": "converted",
    "index": "picked",
    "select": "picked",
    "slice": "part",
    "cat": "joined",
    "arange": "positions",
    "split": "parts",
    "chunk": "parts",
    "neg": "negated",
    "bitwise_not": "inverted",
    "slice_scatter": "written",
    "select_scatter": "written",
    "index_put": "written",
    "masked_fill": "filled",
    "upsample_nearest2d": "resized",
    "upsample_bilinear2d": "resized",
    "upsample_bicubic2d": "resized",
    "upsample_linear1d": "resized",
    "grid_sampler": "sampled",
    "_grouped_mm": "product",
    "linalg_vector_norm": "norm",
    "view": "viewed",
    "reshape": "reshaped",
    "transpose": "transposed",
    "permute": "permuted",
    "expand": "expanded",
    "unsqueeze": "unsqueezed",
    "where": "masked",
    "cond": "chosen",
    "while_loop": "looped",
    "scan": "scanned",
    "map": "mapped",
    "flex_attention": "attention",
}
