"""Operators as people write them: `a + b`, `x.view(…)`, `F.linear(…)`, wherever that runs the same operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import sympy

from codegen.spelling.writers import (
    AND,
    COMPARE,
    OR,
    PLUS,
    SHIFT,
    TIMES,
    XOR,
    Arguments,
    Text,
    Write,
    Writer,
    activation,
    attribute,
    batch_norm,
    broadcast,
    converted,
    convolution,
    embedding,
    function,
    grid_sample,
    index,
    infix,
    interpolate,
    method,
    padding,
    power,
    prefix,
    reduction,
    spread,
    store,
    subscripted,
)
from ir.checkpoint.quantized.scaled_operator import DEQUANTIZED
from ir.graph import Call
from ir.operators.facts import aten
from ir.paged.paged_operator import PAGED_ATTENTION
from ir.quantized_linear.linear_operator import QUANTIZED_LINEAR


def spelled(call: Call, write: Write, sizes: Mapping[sympy.Basic, str] = MappingProxyType({})) -> Text:
    """A call of an operator as an expression; `write` says how its operands read, `sizes` how some of its sizes do."""
    writer, arguments = _WRITERS.get(call.op), Arguments(call, write, sizes)
    text = writer(arguments) if writer else None
    return text or _plain(arguments)


def _plain(a: Arguments) -> Text:
    op = a.call.op
    name = str(op) if op.namespace == "aten" else f"torch.ops.{op}"
    args = [a.text(x) for x in a.call.args] + [f"{k}={a.text(x)}" for k, x in a.call.kwargs.items()]
    return Text(f"{name}({', '.join(args)})")


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
    abs.default acos.default argmax.default argmin.default as_strided.default asin.default atan.default atan2.default
    bmm.default ceil.default chunk.default clamp.default clamp_max.default clamp_min.default clone.default
    contiguous.default cos.default cosh.default cumprod.default cumsum.default detach.default diagonal.default
    diff.default erf.default exp.default expand_as.default expm1.default flatten.using_ints flip.default floor.default
    gather.default histc.default index_add.default index_copy.default index_select.default isfinite.default
    isinf.default isnan.default lerp.Scalar lerp.Tensor log.default log10.default log1p.default log2.default
    log_softmax.int logcumsumexp.default logical_and.default logical_not.default logical_or.default logical_xor.default
    masked_fill.Scalar masked_fill.Tensor masked_scatter.default masked_select.default max.default max.dim mean.default
    min.default min.dim mm.default mv.default nan_to_num.default new_empty.default new_full.default new_ones.default
    new_zeros.default prod.default prod.dim_int reciprocal.default repeat_interleave.self_int roll.default round.default
    rsqrt.default scatter.src scatter.value scatter_add.default scatter_reduce.two sigmoid.default sign.default
    sin.default sinh.default softmax.int split.Tensor sqrt.default square.default squeeze.default squeeze.dim
    sum.default t.default tan.default tanh.default transpose.int tril.default triu.default trunc.default type_as.default
    unbind.int unflatten.int unfold.default unsqueeze.default view_as.default
""")
_REDUCTIONS = _ops("""
    all.dim amax.default amin.default any.dim logsumexp.default mean.dim sum.dim_IntList var.dim
""")
_SPREAD = ["view.default", "reshape.default", "permute.default", "expand.default", "repeat.default"]
_TORCH = _ops("""
    addmm.default arange.default arange.start arange.start_step baddbmm.default bincount.default bucketize.Tensor
    cat.default cdist.default complex.default einsum.default empty.memory_format empty_like.default eye.default eye.m
    full.default full_like.default istft.default linspace.default logaddexp.default logspace.default max.other
    maximum.default min.other minimum.default ones.default ones_like.default outer.default polar.default
    searchsorted.Tensor sort.default sort.stable stack.default topk.default tril_indices.default triu_indices.default
    view_as_complex.default view_as_real.default where.ScalarOther where.ScalarSelf where.self zeros.default
    zeros_like.default
""")
_FUNCTIONAL = _ops("""
    adaptive_avg_pool1d.default gelu.default glu.default hardsigmoid.default hardswish.default linear.default
    mish.default one_hot.default pixel_shuffle.default pixel_unshuffle.default prelu.default relu.default relu6.default
    selu.default silu.default
""")
_ACTIVATIONS = _ops("celu.default elu.default hardtanh.default leaky_relu.default softplus.default")
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
    **{_op(name): activation(name.split(".")[0]) for name in _ACTIVATIONS},
    **{_op(f"fft_{name}.default"): function(f"torch.fft.{name}") for name in _FFT},
    **{_op(f"{name}.vec"): interpolate(mode) for name, mode in _INTERPOLATE.items()},
    **{_op(f"conv{n}d.default"): convolution(f"F.conv{n}d") for n in (1, 2, 3)},
    aten.conv_transpose1d.default: convolution("F.conv_transpose1d"),
    aten.conv_transpose2d.input: convolution("F.conv_transpose2d"),
    aten.conv_transpose3d.input: convolution("F.conv_transpose3d"),
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
    aten.slice.Tensor: subscripted,
    aten.select.int: subscripted,
    aten.index.Tensor: index,
    aten.index_put_.default: store("index_put_"),
    aten.index_put.default: store("index_put"),
    aten.slice_scatter.default: method("slice_scatter", by_name=2),
    aten.select_scatter.default: method("select_scatter", by_name=2),
    aten.diagonal_scatter.default: method("diagonal_scatter", by_name=2),
    aten.pad.default: padding,
    aten.pow.Scalar: power,
    aten.div.Tensor_mode: method("div"),
    aten.rms_norm.default: function("F.rms_norm", by_name=3),
    aten.grid_sampler.default: grid_sample,
    aten.broadcast_tensors.default: broadcast,
    aten.lstm.input: function("torch.lstm"),
    aten.gru.input: function("torch.gru"),
    aten._weight_norm.default: function("torch._weight_norm"),
    aten._grouped_mm.default: function("torch._grouped_mm", by_name=2),
    PAGED_ATTENTION: function("paged_attention", by_name=5),
    QUANTIZED_LINEAR: function("quantized_linear", by_name=4),
    DEQUANTIZED: function("dequantize"),
}
