"""An operator as people write it is the operator: recorded again, it is the same one with the same arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from codegen.spelling.operators import _WRITERS, spelled
from codegen.spelling.writers import Text
from ir.graph import THIS_DEVICE, Call, Value
from ir.sizes import TensorType

aten = torch.ops.aten
DEVICE = torch.device("cpu")

x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
i, j = torch.arange(6).view(2, 3), torch.arange(6).view(2, 3) % 2
m, n = i > 2, j > 0
square, image, volume = torch.randn(4, 4), torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8, 8)
four = torch.randn(4)
wave = torch.complex(x, y)
INF = float("inf")
SMALL = ("acos", "asin", "atan", "cosh", "expm1", "sinh", "tan", "trunc")
LARGE = ("log10", "log1p", "log2", "isfinite", "isinf", "isnan")
SPECTRA = ["fft", "fft2", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "rfft", "rfft2", "rfftn"]

CALLS: list[tuple[Any, ...]] = [
    (aten.add.Tensor, x, y),
    (aten.add.Tensor, x, 2.5),
    (aten.sub.Tensor, x, y),
    (aten.sub.Tensor, x, -1),
    (aten.mul.Tensor, x, y),
    (aten.div.Tensor, x, y),
    (aten.rsub.Scalar, x, 1.0),
    (aten.matmul.default, x, square),
    (aten.__and__.Tensor, m, n),
    (aten.__or__.Tensor, m, n),
    (aten.__xor__.Tensor, m, n),
    (aten.remainder.Scalar, i, 3),
    (aten.remainder.Tensor, i, j + 1),
    (aten.floor_divide.default, i, 2),
    (aten.lt.Tensor, x, y),
    (aten.le.Scalar, x, 1),
    (aten.gt.Tensor, x, y),
    (aten.ge.Scalar, x, 0.5),
    (aten.eq.Tensor, i, j),
    (aten.ne.Scalar, i, 1),
    (aten.neg.default, x),
    (aten.bitwise_not.default, m),
    (aten.pow.Tensor_Scalar, x, 2),
    (aten.pow.Tensor_Scalar, x.abs(), -0.5),
    (aten.cos.default, x),
    (aten.rsqrt.default, x.abs()),
    (aten.tanh.default, x),
    (aten.erf.default, x),
    (aten.cumsum.default, i, 1),
    (aten.diff.default, i, 1, -1, i[:, :1]),
    (aten.softmax.int, x, -1),
    (aten.softmax.int, x, -1, torch.float32),
    (aten.log_softmax.int, x, -1),
    (aten.transpose.int, x, 1, 2),
    (aten.unsqueeze.default, x, 1),
    (aten.squeeze.dim, x[:1], 0),
    (aten.flatten.using_ints, x, 1),
    (aten.masked_fill.Scalar, x, m[..., None], -INF),
    (aten.gather.default, x, 2, i[..., None] % 4),
    (aten.split.Tensor, x, 2, -1),
    (aten.split_with_sizes.default, x, [1, 3], -1),
    (aten.chunk.default, x, 2, -1),
    (aten.unbind.int, x, 1),
    (aten.clamp.default, x, None, 1.0),
    (aten.clamp.default, x, -1.0),
    (aten.tril.default, square),
    (aten.contiguous.default, x.transpose(1, 2)),
    (aten.clone.default, x),
    (aten.type_as.default, i, x),
    (aten.roll.default, x, [1], [2]),
    (aten.new_ones.default, x, []),
    (aten.index_select.default, x, 1, torch.tensor([0])),
    (aten.argmax.default, x, -1),
    (aten.mean.dim, x, [-1], True),
    (aten.mean.dim, x, [1, 2]),
    (aten.sum.dim_IntList, x, [1]),
    (aten.amax.default, x, [-1], True),
    (aten.logsumexp.default, x, [-1]),
    (aten.any.dim, m, 1),
    (aten.var.dim, x, [-1], False, True),
    (aten.view.default, x, [2, -1]),
    (aten.reshape.default, x, [6, 4]),
    (aten.permute.default, x, [2, 0, 1]),
    (aten.expand.default, x[:, :1], [2, 3, -1]),
    (aten.repeat.default, x, [2, 1, 1]),
    (aten.cat.default, [x, y], -1),
    (aten.stack.default, [x, y]),
    (aten.where.self, m[..., None], x, y),
    (aten.where.ScalarOther, m[..., None], x, -INF),
    (aten.arange.default, 5),
    (aten.arange.start, 1, 5),
    (aten.full.default, [2, 3], 1.5),
    (aten.zeros.default, [2]),
    (aten.ones_like.default, x),
    (aten.full_like.default, x, 7),
    (aten.maximum.default, x, y),
    (aten.min.other, x, y),
    (aten.addmm.default, four, square, square),
    (aten.linear.default, x, square, four),
    (aten.linear.default, x, square),
    (aten.relu.default, x),
    (aten.silu.default, x),
    (aten.gelu.default, x),
    (aten.leaky_relu.default, x, 0.2),
    (aten.softplus.default, x),
    (aten.pad.default, x, [1, 1]),
    (aten.adaptive_avg_pool2d.default, image, [1, 1]),
    (aten.avg_pool2d.default, image, [2, 2]),
    (aten.max_pool2d.default, image, [3, 3], [2, 2], [1, 1]),
    (aten.upsample_nearest2d.vec, image, None, [2.0, 2.0]),
    (aten.upsample_nearest2d.vec, image, [5, 7], None),
    (aten.upsample_nearest1d.vec, image[0], None, [2.0]),
    (aten._upsample_nearest_exact2d.vec, image, None, [2.0, 1.5]),
    (aten.upsample_bilinear2d.vec, image, None, False, [2.0, 1.5]),
    (aten.upsample_bilinear2d.vec, image, [5, 7], True, None),
    (aten.upsample_bicubic2d.vec, image, [16, 16], False, None),
    (aten.upsample_linear1d.vec, image[0], [5], False, None),
    (aten.upsample_trilinear3d.vec, volume, [4, 4, 4], False, None),
    (aten.topk.default, x, 2),
    (aten.topk.default, x, 2, 1, False),
    (aten.sort.default, x),
    (aten.sort.default, x, 1, True),
    (aten.embedding.default, square, j),
    (aten.embedding.default, square, j, 0),
    (aten.layer_norm.default, x, [4], four, four, 1e-6),
    (aten.group_norm.default, image, 2, four, four),
    (aten.conv2d.default, image, torch.randn(4, 4, 3, 3), four, [2, 2], [1, 1]),
    (aten.conv2d.default, image, torch.randn(4, 1, 3, 1), None, [1, 1], [1, 0], [1, 1], 4),
    (aten.conv3d.default, volume, torch.randn(4, 4, 3, 3, 3)),
    (aten.conv1d.default, image[0], torch.randn(4, 8, 3)),
    (aten.batch_norm.default, image, four, four, four, four.abs(), False, 0.1, 1e-5, True),
    (aten.scaled_dot_product_attention.default, image, image, image),
    (aten.scaled_dot_product_attention.default, image, image, image, None, 0.0, True),
    (aten.slice.Tensor, x, 1, 0, 2),
    (aten.slice.Tensor, x, -1, 1, 2**63 - 1),
    (aten.slice.Tensor, x, 2, 0, 4, 2),
    (aten.select.int, x, 1, 0),
    (aten.select.int, x, -1, -1),
    (aten.index.Tensor, x, [None, i[:, 0] % 3]),
    (aten.index.Tensor, x, [j, i % 3]),
    (aten.to.dtype, x, torch.float64),
    (aten.mT.default, x),
    (aten.numpy_T.default, square),
    (aten.real.default, wave),
    (aten.imag.default, wave),
    (aten.log_sigmoid.default, x),
    (aten.linalg_vector_norm.default, x, 2, [-1], True),
    (aten.linalg_vector_norm.default, x),
    (aten.sum.default, x),
    (aten.sum.default, i),
    (aten.prod.default, x),
    (aten.prod.dim_int, x, 1),
    (aten.max.default, x),
    (aten.min.default, x),
    (aten.max.dim, x, 1),
    (aten.min.dim, x, -1, True),
    (aten.argmin.default, x, -1),
    (aten.cumprod.default, x, 1),
    (aten.logcumsumexp.default, x, 1),
    *(
        (getattr(aten, name).default, x.abs() / 9)
        for name in ["acos", "asin", "atan", "cosh", "expm1", "sinh", "tan", "trunc"]
    ),
    *((getattr(aten, name).default, x.abs() + 1) for name in LARGE),
    (aten.atan2.default, x, y),
    (aten.clamp_max.default, x, 1),
    (aten.clamp_min.default, x, 1e-6),
    (aten.diagonal.default, x, 1, 1, 2),
    (aten.index_add.default, x, 1, j[0], y),
    (aten.index_copy.default, x, 1, torch.tensor([2, 0, 1]), y),
    (aten.lerp.Scalar, x, y, 0.3),
    (aten.lerp.Tensor, x, y, y),
    (aten.logical_xor.default, m, n),
    (aten.masked_select.default, x, m[..., None]),
    (aten.mm.default, square, square),
    (aten.mv.default, square, four),
    (aten.nan_to_num.default, x, 0.0),
    (aten.scatter_add.default, x, 1, i[..., None] % 3, y),
    (aten.scatter_reduce.two, x, 1, i[..., None] % 3, y, "amax"),
    (aten.unfold.default, x, 1, 2, 1),
    (aten.bincount.default, i.flatten(), None, 9),
    (aten.bucketize.Tensor, x, four.sort()[0]),
    (aten.searchsorted.Tensor, four.sort()[0], x),
    (aten.cdist.default, x, y),
    (aten.complex.default, x, y),
    (aten.polar.default, x.abs(), y),
    (aten.view_as_real.default, wave),
    (aten.view_as_complex.default, torch.randn(3, 2)),
    (aten.eye.default, 3),
    (aten.eye.m, 3, 4),
    (aten.linspace.default, 0, 1, 5),
    (aten.logspace.default, -1, 1, 5),
    (aten.tril_indices.default, 4, 4, -1),
    (aten.triu_indices.default, 4, 5),
    (aten.logaddexp.default, x, y),
    (aten.istft.default, torch.randn(2, 5, 9, dtype=torch.complex64), 8, 2, None, torch.hann_window(8)),
    *(
        (getattr(aten, f"fft_{name}").default, x)
        for name in ["fft", "fft2", "fftn", "fftshift", "ifft", "ifft2", "ifftn"]
    ),
    *((getattr(aten, f"fft_{name}").default, x) for name in ["ifftshift", "ihfft", "rfft", "rfft2", "rfftn"]),
    *((getattr(aten, f"fft_{name}").default, wave) for name in ["hfft", "irfft", "irfft2", "irfftn"]),
    (aten.fft_rfft.default, x, None, 1),
    (aten.fft_irfft2.default, wave, [3, 6]),
    (aten.fft_fftfreq.default, 5),
    (aten.fft_rfftfreq.default, 5, 0.5),
    (aten.celu.default, x),
    (aten.glu.default, x, -1),
    (aten.hardsigmoid.default, x),
    (aten.one_hot.default, i, 7),
    (aten.pixel_shuffle.default, image, 2),
    (aten.pixel_unshuffle.default, image, 2),
    (aten.prelu.default, image, four),
    (aten.selu.default, x),
    (aten.to.device, m, DEVICE, torch.float32),
    (aten.index_put.default, x, [j[:, :1], i[0] % 3], y[0, 0]),
    (aten.index_put.default, x, [j[0]], y[:1], True),
    (aten.slice_scatter.default, x, y[:, :2], 1, 1),
    (aten.select_scatter.default, x, y[:, 0], 1, -1),
    (aten.diagonal_scatter.default, square, four),
    (aten.pad.default, image, [1, 1, 0, 2], "reflect", 0.0),
    (aten.pad.default, x, [1, 1], "constant", -1.0),
    (aten.pow.Scalar, 10000.0, x),
    (aten.unsqueeze.default, x, -1),
    (aten.rms_norm.default, x, [4], four, 1e-6),
    (aten.grid_sampler.default, image, image[:, :2, :, :2].clamp(-1, 1), 0, 0, False),
    (aten.grid_sampler.default, image, image[:, :2, :, :2].clamp(-1, 1), 1, 2, True),
    (aten._weight_norm.default, square, square[:, :1]),
    (aten.conv_transpose1d.default, image[:, :, 0].repeat(1, 2, 1), torch.randn(8, 2, 3), None, [2], [1]),
    (aten.conv_transpose2d.input, image, torch.randn(4, 2, 3, 3), torch.randn(2), [2, 2], [1, 1], [1, 1]),
    (aten.as_strided.default, x, [2, 2], [1, 4]),
    (aten.histc.default, x, 4, 0, 3),
    (aten.new_empty.default, x, [0]),
    (aten.empty_like.default, x[:, :0]),
    (aten.t.default, square),
    (aten.elu.default, x, 1.0),
]
ENVIRONMENT = {"cudnn_enable", "cudnn_enabled", "momentum"}  # arguments that say nothing here


@pytest.mark.parametrize("call", CALLS, ids=lambda c: f"{c[0]}")
def test_what_is_written_is_the_operator(call: tuple[Any, ...]) -> None:
    op, *args = call
    tensors: dict[Value, torch.Tensor] = {}

    def as_value(arg: Any) -> Any:
        match arg:
            case torch.Tensor():
                made = Value(f"v{len(tensors)}", TensorType(tuple(arg.shape), arg.dtype))
                tensors[made] = arg
                return made
            case list():
                return [as_value(a) for a in arg]
        return THIS_DEVICE if arg is DEVICE else arg

    node = Call(op=op, args=tuple(map(as_value, args)), results=())
    source = spelled(node, lambda v: Text(v.name)).source
    assert "aten" not in source
    named = {v.name: t for v, t in tensors.items()}

    def run(*given: torch.Tensor) -> Any:
        scope = dict(zip(named, given, strict=True))
        return eval(source, {"torch": torch, "F": F, "device": DEVICE, "float": float}, scope)

    again = [n for n in make_fx(run, pre_dispatch=True)(*named.values()).graph.nodes if n.op == "call_function"]
    recorded = [n for n in again if isinstance(n.target, OpOverload)]
    assert [n.target for n in recorded] == [op], source
    expected = op(*args)
    for a, b in zip(_list(run(*named.values())), _list(expected), strict=True):
        assert torch.equal(a, b)
        assert (a.dtype, a.stride()) == (b.dtype, b.stride())


def _list(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)


def test_each_kind_of_writer_is_tested() -> None:
    """Operators of one form share a writer; each form that is not `x.name()` or `torch.name()` has a call here."""
    tested = {call[0] for call in CALLS}
    assert len(tested & set(_WRITERS)) == len(tested)


def test_operators_bind_as_in_python() -> None:
    a, b, c = (Value(name, TensorType((2,), torch.float32)) for name in "abc")
    total = Call(op=aten.add.Tensor, args=(a, b), results=())
    inner = spelled(total, lambda v: Text(v.name))
    names = {a: inner, b: Text("b"), c: Text("c")}

    def write(op: Any, *args: Any) -> str:
        return spelled(Call(op=op, args=args, results=()), names.__getitem__).source

    assert write(aten.mul.Tensor, a, c) == "(a + b) * c"
    assert write(aten.sub.Tensor, c, a) == "c - (a + b)"
    assert write(aten.sub.Tensor, a, c) == "a + b - c"
    assert write(aten.pow.Tensor_Scalar, a, 2) == "(a + b) ** 2"
    assert write(aten.neg.default, a) == "-(a + b)"
    assert write(aten.transpose.int, a, 0, 1) == "(a + b).transpose(0, 1)"
    assert write(aten.rsub.Scalar, a, 1.0) == "1.0 - (a + b)"


def test_what_would_mean_something_else_stays_an_operator() -> None:
    a, b = (Value(name, TensorType((2,), torch.float32)) for name in "ab")
    scalar = Value("s", TensorType((), torch.int64))

    def write(op: Any, *args: Any, **kwargs: Any) -> str:
        return spelled(Call(op=op, args=args, kwargs=kwargs, results=()), lambda v: Text(v.name)).source

    assert write(aten.add.Tensor, a, b, alpha=2) == "aten.add.Tensor(a, b, alpha=2)"
    assert write(aten.index.Tensor, a, [scalar]) == "aten.index.Tensor(a, [s])"
    assert write(aten.add.Scalar, a, 2) == "aten.add.Scalar(a, 2)"
