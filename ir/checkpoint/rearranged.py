"""A tensor subclass without data that tracks which checkpoint bytes it consists of.

transformers' own code for loading a checkpoint (split, concatenate, stack, transpose) runs on these in place of
real tensors.  The result is the pieces of each of the model's tensors, and nothing has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only

from ir.checkpoint.mosaic import Mosaic
from ir.checkpoint.tensors import Piece, Stored, Tensorlike, replaced
from ir.operators.facts import aten


class Rearranged(torch.Tensor):
    """A tensor without data, and the `source` that it is read from.

    `inside`: where this is a part of another one, which changes with it: that one, how a part is put back, and where.
    """

    source: Tensorlike
    inside: tuple[Rearranged, OpOverload, tuple[Any, ...]] | None = None

    @staticmethod
    def __new__(cls, source: Tensorlike, like: torch.Tensor) -> Rearranged:
        """With the shape, strides and dtype of the meta tensor `like`."""
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=torch.device("cpu")
        )
        made.source = source
        return made

    @classmethod
    def standing_for(cls, source: Tensorlike) -> Rearranged:
        return cls(source, torch.empty(source.shape, dtype=source.dtype, device="meta"))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Rearranged({self.source})"

    @classmethod
    def __torch_dispatch__(
        cls, op: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if op is aten.equal.default:
            return _equal(*args)
        if op._schema.is_mutable:
            return _changed(op, args, options)
        on_meta = options | {"device": "meta"} if "device" in options else options
        like = op(*tree_map_only(torch.Tensor, _meta, args), **tree_map_only(torch.Tensor, _meta, on_meta))
        shapes = like if isinstance(like, (list, tuple)) else [like]
        sources = _RULES[op](*args) if op in _RULES else None
        if sources is None:
            given, named = tree_map_only(Rearranged, _as_it_is, (tuple(args), options))
            sources = [Computed(op, given, named, i, tuple(t.shape), t.dtype) for i, t in enumerate(shapes)]
        made = [cls(source, t) for source, t in zip(sources, shapes, strict=True)]
        if op in _PUT_BACK:
            made[0].inside = args[0], _PUT_BACK[op], tuple(args[1:])
        return made if isinstance(like, (list, tuple)) else made[0]


@dataclass(frozen=True, eq=False)
class Computed:
    """The result of an operator that computes elements: it is run when the result is read, on operands read whole."""

    op: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: int  # which of the operator's results
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        out = self.op(*tree_map_only(Rearranged, _real, self.args), **tree_map_only(Rearranged, _real, self.kwargs))
        return (out[self.result] if isinstance(out, (list, tuple)) else out).to(dtype).contiguous()

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        yield self.read(dtype).flatten()


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _as_it_is(tensor: Rearranged) -> Rearranged:
    """The tensor as it is now, whatever changes it later."""
    return Rearranged(tensor.source, _meta(tensor))


def _real(tensor: Rearranged) -> torch.Tensor:
    return tensor.source.read(tensor.dtype)


def _equal(a: Rearranged, b: Rearranged) -> bool:
    return a.source == b.source or torch.equal(_real(a), _real(b))


def _changed(op: OpOverload, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Change a tensor in place, and what it is a part of.

    One that stands for a stored tensor is from then on what is computed from that.
    """
    changed = args[0]
    if not isinstance(changed, Rearranged):
        return op(
            changed, *tree_map_only(Rearranged, _real, args[1:]), **tree_map_only(Rearranged, _real, dict(options))
        )
    given, named = tree_map_only(Rearranged, _as_it_is, (tuple(args), dict(options)))
    changed.source = Computed(op, given, named, 0, tuple(changed.shape), changed.dtype)
    if changed.inside is not None:
        whole, put_back, where = changed.inside
        _changed(put_back, (whole, changed, *where), {})
    return changed


# ---- rules: where the elements of an operator's results lie, or None where only computing them tells


def _same(tensor: Any, *_: Any) -> list[Tensorlike]:
    return [tensor.source]


def _unpadded(tensor: Any, pad: Sequence[int], *_: Any) -> list[Tensorlike] | None:
    return None if any(pad) else [tensor.source]


def _concatenated(tensors: Sequence[Any], dim: int = 0) -> list[Tensorlike] | None:
    sources, dim = _sources(tensors), dim % tensors[0].ndim
    if sources is None:
        return None
    stored = [s for s in sources if isinstance(s, Stored)]
    return [_joined(stored, dim) if len(stored) == len(sources) else Mosaic.concatenated(sources, dim)]


def _stacked(tensors: Sequence[Any], dim: int = 0) -> list[Tensorlike] | None:
    sources, dim = _sources(tensors), dim % (tensors[0].ndim + 1)
    if sources is None:
        return None
    thin = [_each(s, _inserted(s.shape, dim, 1), lambda p: _with_dim(p, dim)) for s in sources if isinstance(s, Stored)]
    return [_joined(thin, dim) if len(thin) == len(sources) else Mosaic.stacked(sources, dim)]


def _sources(tensors: Sequence[Any]) -> list[Tensorlike] | None:
    sources = [tensor.source for tensor in tensors if isinstance(tensor, Rearranged)]
    return sources if len(sources) == len(tensors) else None


def _split(tensor: Any, size: int, dim: int = 0) -> list[Tensorlike] | None:
    dim %= tensor.ndim
    if isinstance(tensor.source, Mosaic):
        return tensor.source.split(dim, size)  # type: ignore[return-value]
    if not isinstance(tensor.source, Stored):
        return None
    return [
        tensor.source.narrowed(dim, first, min(size, tensor.shape[dim] - first))
        for first in range(0, tensor.shape[dim], size)
    ]


def _transposed(tensor: Any, a: int, b: int) -> list[Tensorlike] | None:
    if not isinstance(tensor.source, Stored):
        return None
    order = list(range(tensor.ndim))
    order[a], order[b] = order[b], order[a]

    def permuted(dims: Sequence[int]) -> tuple[int, ...]:
        return tuple(dims[i] for i in order)

    def turned(piece: Piece) -> Piece:
        return replace(piece, shape=permuted(piece.shape), stride=permuted(piece.stride), at=permuted(piece.at))

    return [_each(tensor.source, permuted(tensor.source.shape), turned)]


def _viewed(tensor: Any, shape: Sequence[int]) -> list[Tensorlike] | None:
    if not isinstance(tensor.source, Stored) or len(tensor.source.pieces) > 1:
        return None
    piece = next(iter(tensor.source.pieces))
    try:
        view = torch.empty_strided(piece.shape, piece.stride, device="meta").view(shape)
    except RuntimeError:  # not a view of how it lies in the file
        return None
    return [Stored.whole(piece.file, piece.start, piece.dtype, view.shape, view.stride(), piece.change)]


_PUT_BACK: Mapping[OpOverload, OpOverload] = {
    aten.select.int: aten.select_scatter.default,
    aten.slice.Tensor: aten.slice_scatter.default,
}
"""By what takes a part of a tensor: what puts one there, by the same arguments."""

_RULES: Mapping[OpOverload, Callable[..., list[Tensorlike] | None]] = {
    aten.alias.default: _same,
    aten.detach.default: _same,
    aten.clone.default: _same,
    aten._to_copy.default: _same,
    aten.constant_pad_nd.default: _unpadded,
    aten.cat.default: _concatenated,
    aten.stack.default: _stacked,
    aten.split.Tensor: _split,
    aten.transpose.int: _transposed,
    aten.view.default: _viewed,
    aten._unsafe_view.default: _viewed,
}


def _each(stored: Stored, shape: tuple[int, ...], change: Callable[[Piece], Piece]) -> Stored:
    return Stored(shape, tuple(map(change, stored.pieces)))


def _with_dim(piece: Piece, dim: int) -> Piece:
    return replace(
        piece,
        shape=_inserted(piece.shape, dim, 1),
        stride=_inserted(piece.stride, dim, 1),
        at=_inserted(piece.at, dim, 0),
    )


def _inserted(items: tuple[int, ...], place: int, item: int) -> tuple[int, ...]:
    return (*items[:place], item, *items[place:])


def _joined(parts: Sequence[Stored], dim: int) -> Stored:
    pieces, end = list[Piece](), 0
    for part in parts:
        pieces += [replace(p, at=replaced(p.at, dim, p.at[dim] + end)) for p in part.pieces]
        end += part.shape[dim]
    shape = replaced(parts[0].shape, dim, end)
    return Stored(shape, tuple(sorted(pieces, key=lambda p: p.at)))
