"""Operators and their rules.  An operator that stands in no table is not known to keep rows apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ir.analysis.random_numbers import may_draw
from ir.graph import Value
from ir.operators.facts import aten_name
from passes.rows import compute, indices, numeric, order, shapes
from passes.rows.axis import Axis, Found, Holds, MixedError, Rule, Site, require


def axes_of(site: Site) -> tuple[Found, ...]:
    """The axis of each result.  Raises MixedError with a clause that fits after the operator's name."""
    name = aten_name(site.call.op)
    rule = _rule(site, name)
    has_rows = any(site.axis(v) for v in site.call.operands) or _mentions(site)
    if has_rows and rule is None:
        raise MixedError("it is not known to keep rows apart")
    require(not may_draw(site.call), "its random numbers are those of all rows")  # also where all rows share them
    if rule is None or not has_rows:
        return (None,) * len(site.call.results)
    if name not in _NUMBERS and rule is not order.RULES.get(name):
        require(not any(a.numbers for v in site.call.operands if (a := site.axis(v))), "it computes with row numbers")
    found = rule(site)
    axes = (found,) if found is None or isinstance(found, Axis) else tuple(found)
    if name not in order.NATURAL:
        axes = tuple(axis and replace(axis, natural=False) for axis in axes)
    for result, axis in zip(site.call.results, axes, strict=True):
        _check(site, result, axis)
    return axes


def _rule(site: Site, name: str) -> Rule | None:
    """The rule for an operator; some are others where rows are sorted."""
    usual = compute.elementwise if torch.Tag.pointwise in site.call.op.tags else _RULES.get(name)
    if not order.is_about_order(site.call.operands, site.known):
        return usual
    numbers = any(axis.numbers for v in site.call.operands if (axis := site.axis(v)))
    if name in order.RULES and (usual is not compute.elementwise or numbers):
        return order.RULES[name]
    return usual if usual is compute.elementwise or name in order.AS_USUAL else None


def _mentions(site: Site) -> bool:
    return site.size in site.call.symbols or any(site.mentions(list(v.type.shape)) for v in site.call.results)


def _check(site: Site, value: Value, axis: Found) -> None:
    """Raise MixedError unless the number of rows stands in the size of the axis, and there alone."""
    lies = axis is not None and axis.holds not in (Holds.COUNTS, Holds.ENDS)
    others = [size for i, size in enumerate(value.type.shape) if axis is None or not lies or i != axis.dim]
    require(not any(map(site.mentions, others)), "rows meet rows")


def _all(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: Mapping[str, Rule] = {
    # The same elements, elsewhere or once more
    **_all(shapes.same_place, "view_as_complex view_as_real"),
    **_all(shapes.same_place, "alias detach contiguous clone lift_fresh lift_fresh_copy to _to_copy type_as dropout"),
    **_all(shapes.reshaped, "view reshape _unsafe_view flatten unflatten view_as reshape_as"),
    **_all(shapes.expanded, "expand expand_as broadcast_to"),
    **_all(shapes.transposed(), "transpose swapdims"),
    "swapaxes": shapes.transposed("axis0", "axis1"),
    **_all(shapes.turned, "t mT adjoint numpy_T"),
    "permute": shapes.permuted,
    "unsqueeze": shapes.unsqueezed,
    "squeeze": shapes.squeezed,
    "select": shapes.selected,
    **_all(shapes.sliced, "slice narrow"),
    **_all(shapes.pieces, "split split_with_sizes chunk tensor_split"),
    "unbind": shapes.unbound,
    **_all(shapes.concatenated, "cat concat concatenate"),
    "stack": shapes.stacked,
    "repeat": shapes.tiled,
    "repeat_interleave": shapes.interleaved,
    **_all(shapes.padded, "constant_pad_nd pad"),
    # Made of a shape
    **_all(shapes.filled, "zeros ones full empty new_zeros new_ones new_full new_empty"),
    **_all(shapes.like, "zeros_like ones_like full_like empty_like"),
    "arange": shapes.counted,
    # Element by element; torch's own tag tells most
    **_all(compute.elementwise, "__and__ __or__ __xor__ where masked_fill rsub log_sigmoid floor_divide true_divide"),
    **_all(compute.elementwise, "bitwise_and bitwise_or logical_and logical_or and_ prelu hardswish relu6 isfinite"),
    **_all(compute.elementwise, "complex polar real imag conj _conj resolve_conj angle bucketize"),
    **_all(compute.elementwise, "expm1 log1p div mul add sub multiply divide subtract"),
    **_all(compute.elementwise, "negative absolute greater greater_equal less less_equal not_equal clip square"),
    "glu": compute.gated,
    # Along dimensions
    **_all(compute.along("dim"), "softmax _softmax log_softmax _log_softmax softmin cumsum cumprod logcumsumexp"),
    **_all(order.sorted_rows, "sort argsort"),
    "topk": order.chosen_first,
    **_all(compute.along("dim"), "cummax cummin"),
    **_all(compute.along("dims"), "flip roll"),
    "unfold": compute.along("dimension"),
    **_all(compute.reduced, "mean sum prod amax amin max min argmax argmin any all var std var_mean std_mean"),
    **_all(compute.reduced, "logsumexp norm linalg_vector_norm median nanmedian mode count_nonzero kthvalue"),
    **_all(compute.inner(2), "tril triu"),
    # Products
    "linear": compute.linear,
    **_all(compute.product("self", "mat2"), "mm bmm"),
    "matmul": compute.product("self", "other"),
    "linalg_matmul": compute.product("input", "other"),
    "mv": compute.product("self", "vec"),
    "addmm": compute.product("mat1", "mat2", "self"),
    "baddbmm": compute.product("batch1", "batch2", "self"),
    "einsum": compute.einsum,
    "scaled_dot_product_attention": compute.attention,
    # Layers
    **_all(compute.normalised, "layer_norm rms_norm"),
    **_all(compute.first_dimension, "group_norm"),
    **_all(compute.by_channel, "batch_norm instance_norm"),
    **_all(compute.convolved, "convolution conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    **_all(compute.inner(1), "max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d"),
    **_all(compute.inner(1), "upsample_linear1d reflection_pad1d replication_pad1d"),
    **_all(compute.inner(2), "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices"),
    **_all(compute.inner(2), "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bicubic2d_aa"),
    **_all(compute.inner(2), "reflection_pad2d replication_pad2d _upsample_bilinear2d_aa upsample_nearest_exact2d"),
    **_all(compute.inner(3), "max_pool3d avg_pool3d adaptive_avg_pool3d upsample_nearest3d upsample_trilinear3d"),
    **_all(compute.inner(3), "pixel_shuffle pixel_unshuffle channel_shuffle im2col"),
    **_all(compute.recurrent, "lstm gru rnn_tanh rnn_relu"),
    **_all(numeric.stepped, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    # Signals, geometry, linear algebra
    **_all(compute.along("dim"), "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fftshift fft_ifftshift"),
    **_all(compute.along("dim"), "fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn"),
    "stft": compute.inner(1),
    "istft": compute.inner(2),
    **_all(numeric.sampled, "grid_sampler affine_grid_generator"),
    **_all(numeric.crossed, "cross linalg_cross"),
    "cosine_similarity": numeric.similar,
    "cdist": numeric.distances,
    "searchsorted": numeric.searched,
    "diagonal": numeric.on_diagonal,
    **_all(numeric.moved_to, "movedim moveaxis"),
    **_all(
        compute.inner(2), "linalg_inv inverse linalg_cholesky cholesky linalg_qr linalg_svd linalg_svdvals linalg_eigh"
    ),
    **_all(compute.inner(2), "linalg_eigvalsh linalg_det det linalg_slogdet slogdet linalg_matrix_exp matrix_exp"),
    # By indices
    "embedding": indices.looked_up,
    "one_hot": shapes.same_place,
    **_all(indices.gathered, "gather scatter scatter_add scatter_reduce take_along_dim"),
    "slice_scatter": indices.written_beside,
    "index_select": indices.chosen,
    **_all(indices.at_same_places, "index_add index_copy index_fill"),
    "index": indices.indexed,
    **_all(indices.written, "index_put"),
}

_NUMBERS = {"alias", "detach", "contiguous", "clone", "to", "_to_copy", "view", "reshape", "flatten", "unsqueeze"}
_NUMBERS |= {"squeeze", "expand", "index", "index_put"}
"""Operators whose results are still the numbers of rows, or that read and write the rows by them."""
