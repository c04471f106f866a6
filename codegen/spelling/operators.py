"""Operators as people write them: `a + b`, `x.view(…)`, `F.linear(…)`, wherever that runs the same operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from codegen.spelling.literals import argument_source, expr_source
from ir.checkpoint.quantized.scaled_operator import DEQUANTIZED
from ir.graph import Call, Value
from ir.operators.facts import aten
from ir.paged.paged_operator import PAGED_ATTENTION
from ir.quantized_linear.linear_operator import QUANTIZED_LINEAR

ATOM, POWER, UNARY, TIMES, PLUS, SHIFT, AND, XOR, OR, COMPARE = 10, 9, 8, 7, 6, 5, 4, 3, 2, 1


@dataclass(frozen=True)
class Text:
    """The source of an expression, and its precedence: the higher, the fewer parentheses."""

    source: str
    binds: int = ATOM

    def within(self, binds: int) -> str:
        return self.source if self.binds >= binds else f"({self.source})"


Write = Callable[[Value], Text]


def spelled(call: Call, write: Write) -> Text:
    """A call of an operator as an expression; `write` says how its operands read."""
    writer = _WRITERS.get(call.op)
    text = writer(Arguments(call, write)) if writer else None
    return text or _plain(Arguments(call, write))


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call, by their names in the operator's schema."""

    call: Call
    write: Write = field(default=lambda value: Text(value.name))

    @property
    def names(self) -> list[str]:
        return [a.name for a in self.call.op._schema.arguments]

    def __getitem__(self, name: str) -> Any:
        """An argument by its name; what was left out has its default."""
        return self.call.arguments[name]

    def text(self, arg: Any) -> str:
        return argument_source(arg, lambda v: self.write(v).source)

    def operand(self, arg: Any) -> Text:
        """An operand of an operator such as +."""
        if isinstance(arg, Value):
            return self.write(arg)
        if isinstance(arg, sympy.Basic):
            return Text(expr_source(arg), ATOM if isinstance(arg, sympy.Symbol) else 0)
        return Text(self.text(arg), UNARY if isinstance(arg, (int, float)) and arg < 0 else ATOM)

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


def _plain(a: Arguments) -> Text:
    op = a.call.op
    name = str(op) if op.namespace == "aten" else f"torch.ops.{op}"
    args = [a.text(x) for x in a.call.args] + [f"{k}={a.text(x)}" for k, x in a.call.kwargs.items()]
    return Text(f"{name}({', '.join(args)})")


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


def slicing(a: Arguments) -> Text | None:
    """`x[:, 1:5]`, and `x[..., :5]` for the last dimension."""
    x, dim = a["self"], a["dim"]
    start, end, step = (a[name] for name in ("start", "end", "step"))
    ends = (None if start in (None, 0) else start), (None if end is None or _endless(end) else end)
    if ends == (None, None) and step == 1:
        return None
    part = ":".join("" if e is None else a.text(e) for e in ends) + ("" if step == 1 else f":{a.text(step)}")
    return _indexed(a, x, dim, part)


def _endless(end: Any) -> bool:
    return isinstance(end, int) and end >= 2**62


def select(a: Arguments) -> Text | None:
    return _indexed(a, a["self"], a["dim"], a.text(a["index"]))


def _indexed(a: Arguments, x: Value, dim: Any, part: str) -> Text | None:
    rank = len(x.type.shape)
    dim = dim % rank
    before = ["..."] if dim == rank - 1 and rank > 2 else [":"] * dim
    return Text(f"{a.write(x).within(ATOM)}[{', '.join([*before, part])}]") if dim < 3 or before == ["..."] else None


def index(a: Arguments) -> Text | None:
    """`x[:, rows]`; a tensor without dimensions would be read as a number."""
    if any(i is not None and not (isinstance(i, Value) and i.type.shape) for i in a["indices"]):
        return None
    parts = [":" if i is None else a.text(i) for i in a["indices"]]
    return Text(f"{a.write(a['self']).within(ATOM)}[{', '.join(parts)}]")


def store(a: Arguments) -> Text | None:
    """`pool.index_put_((page, place), new)`."""
    if any(not isinstance(i, Value) for i in a["indices"]):
        return None
    indices = ", ".join(map(a.text, a["indices"])) + "," * (len(a["indices"]) == 1)
    return Text(f"{a.write(a['self']).within(ATOM)}.index_put_(({indices}), {', '.join(a.rest(2))})")


def converted(a: Arguments) -> Text:
    return Text(f"{a.write(a['self']).within(ATOM)}.to({', '.join(a.rest(1))})")


# ---- the table


def _ops(names: str) -> list[str]:
    return names.split()


_INFIX = {
    "add.Tensor": ("+", PLUS),
    "sub.Tensor": ("-", PLUS),
    "mul.Tensor": ("*", TIMES),
    "div.Tensor": ("/", TIMES),
    "matmul.default": ("@", TIMES),
    "__and__.Tensor": ("&", AND),
    "__or__.Tensor": ("|", OR),
    "__xor__.Tensor": ("^", XOR),
    "__and__.Scalar": ("&", AND),
    "__lshift__.Scalar": ("<<", SHIFT),
    "__lshift__.Tensor": ("<<", SHIFT),
    "__rshift__.Tensor": (">>", SHIFT),
    "__rshift__.Scalar": (">>", SHIFT),
    "remainder.Scalar": ("%", TIMES),
    "remainder.Tensor": ("%", TIMES),
    "floor_divide.default": ("//", TIMES),
} | {
    f"{name}.{kind}": (symbol, COMPARE)
    for name, symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items()
    for kind in ("Tensor", "Scalar")
}

_METHODS = _ops("""
    abs.default acos.default argmax.default argmin.default asin.default atan.default atan2.default bmm.default
    ceil.default chunk.default clamp.default clamp_max.default clamp_min.default clone.default contiguous.default
    cos.default cosh.default cumprod.default cumsum.default diagonal.default diff.default detach.default erf.default
    exp.default expand_as.default expm1.default flatten.using_ints flip.default floor.default gather.default
    index_add.default index_copy.default index_select.default isfinite.default isinf.default isnan.default lerp.Scalar
    lerp.Tensor log.default log10.default log1p.default log2.default log_softmax.int logcumsumexp.default
    logical_and.default logical_not.default logical_or.default logical_xor.default masked_fill.Scalar
    masked_fill.Tensor masked_select.default max.default max.dim mean.default min.default min.dim mm.default mv.default
    nan_to_num.default new_ones.default new_zeros.default new_full.default prod.default prod.dim_int
    reciprocal.default repeat_interleave.self_int roll.default round.default rsqrt.default scatter.src scatter.value
    scatter_add.default scatter_reduce.two sigmoid.default sign.default sin.default sinh.default softmax.int
    split.Tensor sqrt.default squeeze.default squeeze.dim square.default sum.default tan.default tanh.default
    transpose.int tril.default triu.default trunc.default type_as.default unbind.int unflatten.int unfold.default
    unsqueeze.default view_as.default
""")
_REDUCTIONS = _ops("""
    all.dim amax.default amin.default any.dim logsumexp.default mean.dim sum.dim_IntList var.dim
""")
_SPREAD = ["view.default", "reshape.default", "permute.default", "expand.default", "repeat.default"]
_TORCH = _ops("""
    addmm.default arange.default arange.start arange.start_step baddbmm.default bincount.default bucketize.Tensor
    cat.default cdist.default complex.default einsum.default eye.default eye.m full.default full_like.default
    istft.default linspace.default logaddexp.default logspace.default max.other maximum.default min.other
    minimum.default ones.default ones_like.default outer.default polar.default searchsorted.Tensor sort.default
    sort.stable stack.default topk.default tril_indices.default triu_indices.default view_as_complex.default
    view_as_real.default where.ScalarOther where.ScalarSelf where.self zeros.default zeros_like.default
""")
_FUNCTIONAL = _ops("""
    adaptive_avg_pool1d.default celu.default elu.default gelu.default glu.default hardsigmoid.default
    hardswish.default hardtanh.default leaky_relu.default linear.default mish.default one_hot.default pad.default
    pixel_shuffle.default pixel_unshuffle.default prelu.default relu.default relu6.default selu.default silu.default
    softplus.default
""")
_FFT = _ops("""
    fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftfreq rfftn
""")


_INTERPOLATE = {
    **{f"upsample_nearest{n}d": "nearest" for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": "nearest-exact" for n in (1, 2, 3)},
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_bicubic2d": "bicubic",
    "upsample_trilinear3d": "trilinear",
}


def _op(name: str) -> Any:
    packet, overload = name.split(".")
    return getattr(getattr(aten, packet), overload)


_WRITERS: Mapping[Any, Writer] = {
    **{_op(name): infix(*how) for name, how in _INFIX.items()},
    **{_op(name): method(name.split(".")[0]) for name in _METHODS},
    **{_op(name): reduction(name.split(".")[0]) for name in _REDUCTIONS},
    **{_op(name): spread(name.split(".")[0]) for name in _SPREAD},
    **{_op(name): function(f"torch.{name.split('.')[0]}") for name in _TORCH},
    **{_op(name): function(f"F.{name.split('.')[0]}") for name in _FUNCTIONAL},
    **{_op(f"fft_{name}.default"): function(f"torch.fft.{name}") for name in _FFT},
    **{_op(f"{name}.vec"): interpolate(mode) for name, mode in _INTERPOLATE.items()},
    **{_op(f"conv{n}d.default"): convolution(f"F.conv{n}d") for n in (1, 2, 3)},
    **{_op(f"to.{kind}"): converted for kind in ("dtype", "device")},
    aten.mT.default: attribute("mT"),
    aten.numpy_T.default: attribute("T"),
    aten.real.default: attribute("real"),
    aten.imag.default: attribute("imag"),
    aten.log_sigmoid.default: function("F.logsigmoid"),
    aten.linalg_vector_norm.default: function("torch.linalg.vector_norm", by_name=2),
    aten.rsub.Scalar: infix("-", PLUS, swapped=True),
    aten.neg.default: prefix("-"),
    aten.bitwise_not.default: prefix("~"),
    aten.pow.Tensor_Scalar: power,
    aten.embedding.default: embedding,
    aten.batch_norm.default: batch_norm,
    aten.layer_norm.default: function("F.layer_norm", by_name=4, skip=["cudnn_enable"]),
    aten.group_norm.default: function("F.group_norm", by_name=4, skip=["cudnn_enabled"]),
    aten.scaled_dot_product_attention.default: function("F.scaled_dot_product_attention", by_name=3),
    aten.split_with_sizes.default: method("split"),
    aten.max_pool2d.default: function("F.max_pool2d", by_name=2, short=True),
    aten.avg_pool2d.default: function("F.avg_pool2d", by_name=2, short=True),
    aten.adaptive_avg_pool2d.default: function("F.adaptive_avg_pool2d", short=True),
    aten.slice.Tensor: slicing,
    aten.select.int: select,
    aten.index.Tensor: index,
    aten.index_put_.default: store,
    PAGED_ATTENTION: function("paged_attention", by_name=5),
    QUANTIZED_LINEAR: function("quantized_linear", by_name=4),
    DEQUANTIZED: function("dequantize"),
}
