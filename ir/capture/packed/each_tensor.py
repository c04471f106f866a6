"""Code that takes images apart one by one by their sizes, run once for all of them.

A module that takes `image_sizes` `[images, 2]` beside pixels gets one image for all where it iterates over either.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any, NoReturn, Protocol
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ir.capture.packed.any_of_many import AnyOfMany
from ir.capture.packed.each import (
    EachNumber,
    EachRow,
    ImageMap,
    indices_below,
    is_one,
    of_all_images,
    of_packed_rows,
    product_of,
)
from ir.capture.packed.pieces import is_unknown

_SIZES = "image_sizes"  # the parameter of a module
_MASK = "generate_block_attention_mask"


def takes_sizes(model: nn.Module) -> bool:
    """Whether the model has a tower that takes the sizes of images beside their pixels."""
    return any(_is_tower(inspect.signature(module.forward).parameters) for module in model.modules())


def _is_tower(parameters: Collection[str]) -> bool:
    return _SIZES in parameters and "input_ids" not in parameters


def sizes_among(inputs: Mapping[str, Tensor]) -> tuple[str, Tensor] | None:
    """The input `[images, 2]` without values that says the sizes of images, by its name; None if there is none."""
    found = [(n, t) for n, t in inputs.items() if n.split(".")[-1] == _SIZES and t.dim() == 2 and is_unknown(t)]
    return found[0] if len(found) == 1 else None


@contextmanager
def images_as_one(name: str, sizes: Tensor, same: Callable[[Any, Any], bool], seen: SizesSeen) -> Iterator[None]:
    """Give code that iterates over images whose `sizes` have no values one image for all, inside the context.

    `name` is that of the input, `same` says whether two sizes are of one name.
    """
    context = _Images(name, sizes, same, seen)
    iterated, split, arange = torch.Tensor.__iter__, torch.Tensor.split, torch.arange
    with ExitStack() as patches:
        patches.enter_context(patch.object(torch.Tensor, "__iter__", wraps(iterated)(context.iterating(iterated))))
        patches.enter_context(patch.object(torch.Tensor, "split", wraps(split)(context.splitting(split))))
        for place in (torch, torch.functional):
            patches.enter_context(patch.object(place, "split", wraps(place.split)(context.splitting(place.split))))
        patches.enter_context(patch.object(torch, "arange", wraps(arange)(context.counting(arange))))
        for module in _modules_with(_MASK) if mask_is_known() else ():
            patches.enter_context(patch.object(module, _MASK, _masking(getattr(module, _MASK))))
        yield


class SizesSeen(Protocol):
    """Notes on the sizes of images, an input by its name."""

    def rows(self, name: str, count: EachNumber, total: Any) -> None:
        """Rows of all images that are joined: so many of each, and `total` at most."""

    def limit(self, name: str, count: EachNumber, size: Any) -> None:
        """A number of each image that is not above a size."""


class _Images:
    """The images of a call, whose sizes are an input."""

    def __init__(self, name: str, sizes: Tensor, same: Callable[[Any, Any], bool], seen: SizesSeen) -> None:
        self._name, self.sizes, self._same, self._seen = name, sizes, same, seen

    def iterating(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def iterated(tensor: Tensor) -> Iterator[Any]:
            if tensor is self.sizes:
                return iter([EachRow(tensor)])
            plainly = isinstance(tensor, EachTensor) or tensor.dim() < 3
            if plainly or not self._same(tensor.shape[0], self.sizes.shape[0]):
                return plain(tensor)
            return iter([EachTensor(of_all_images(tensor), tensor, self)])

        return iterated

    def splitting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def split(tensor: Tensor, lengths: Any = None, *args: Any, **kwargs: Any) -> Any:
            counts = list(lengths) if isinstance(lengths, (list, tuple)) else []
            dim = args[0] if args else kwargs.get("dim", 0)
            if not (counts and isinstance(counts[0], EachNumber)):
                return (
                    plain(tensor, lengths, *args, **kwargs) if lengths is not None else plain(tensor, *args, **kwargs)
                )
            if len(counts) > 1 or dim != 0 or tensor.dim() != 2:
                counts[0].read()
            return (EachTensor(of_packed_rows(tensor, counts[0]), tensor, self),)

        return split

    def counting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def arange(*args: Any, **kwargs: Any) -> Any:
            if len(args) != 1 or not isinstance(args[0], EachNumber) or kwargs.keys() - {"device"}:
                return plain(*args, **kwargs)
            return EachTensor(indices_below(args[0]), args[0].values, self)

        return arange

    def limited(self, count: EachNumber, size: Any) -> None:
        """Note that a number of each image is not above a size, by which it would be cut."""
        if len(count.by) != 1 or isinstance(size, EachNumber):
            count.read()
        self._seen.limit(self._name, count, size)

    def joined(self, image: ImageMap) -> Tensor:
        """The rows of all images, one after the other."""
        made, total = image.packed(self.sizes.shape[0])
        self._seen.rows(self._name, image.dims[image.axes[0]], total)
        return made


class EachTensor(AnyOfMany):
    """A tensor of any of the images."""

    image: ImageMap
    like: Tensor
    images: _Images

    @staticmethod
    def __new__(cls, image: ImageMap, like: Tensor, images: _Images) -> EachTensor:
        made = Tensor._make_wrapper_subclass(cls, [1] * len(image.dims), dtype=like.dtype, device=like.device)
        made.image, made.like, made.images = image, like, images
        return made

    def __init__(self, image: ImageMap, like: Tensor, images: _Images) -> None:
        super().__init__()

    def read(self) -> NoReturn:
        EachNumber(self.images.sizes).read()

    @classmethod
    def made_of_all(cls, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        make = _FOR_EACH.get(name)
        return None if make is None else make(*args, **kwargs)

    def view(self, *shape: Any) -> Any:  # type: ignore[override]  # torch's own takes no numbers of images
        return EachTensor.__torch_function__(Tensor.view, (), (self, *shape))

    def reshape(self, *shape: Any) -> Any:  # type: ignore[override]
        return EachTensor.__torch_function__(Tensor.reshape, (), (self, *shape))

    def made(self, image: ImageMap | None) -> EachTensor | None:
        return None if image is None else EachTensor(image, self.like, self.images)


# ---- what is made of each image; None where that cannot be told


def _permute(each: EachTensor, *order: Any) -> EachTensor | None:
    return each.made(each.image.permuted(order[0] if isinstance(order[0], (list, tuple)) else order))


def _transpose(each: EachTensor, first: int = 0, second: int = 1) -> EachTensor | None:
    order = list(range(len(each.image.dims)))
    order[first], order[second] = order[second], order[first]
    return each.made(each.image.permuted(order))


def _flatten(each: EachTensor, start_dim: int = 0, end_dim: int = -1) -> EachTensor | None:
    dims, end = each.image.dims, end_dim % len(each.image.dims) + 1
    if each.image.channel is not None and start_dim <= each.image.channel < end:
        return None
    return _view(each, *dims[:start_dim], product_of(dims[start_dim:end]), *dims[end:])


def _view(each: EachTensor, *shape: Any) -> EachTensor | None:
    return each.made(each.image.viewed(shape[0] if isinstance(shape[0], (list, tuple)) else shape))


def _unsqueeze(each: EachTensor, dim: int) -> EachTensor | None:
    image = each.image
    if dim != 0:
        return None
    channel = None if image.channel is None else image.channel + 1
    return each.made(ImageMap((1, *image.dims), channel, lambda i, places: image.at(i, places[1:]), image.total))


def _sliced(each: EachTensor, index: Any) -> EachTensor | None:
    index = index if isinstance(index, tuple) else (index,)
    image, behind = each.image, index[index.index(...) + 1 :] if ... in index else ()
    if index[0] is not ... or any(not isinstance(s, slice) or s.start or s.step for s in behind):
        return None
    for dim, part in enumerate(behind, len(image.dims) - len(behind)):
        if dim == image.channel or not isinstance(part.stop, EachNumber):
            return None
        each.images.limited(part.stop, image.dims[dim])
        image = image.cut(dim, part.stop)
    return each.made(image)


def _unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> EachTensor | None:
    image = input.image
    if not isinstance(kernel_size, int) or kernel_size != stride or dilation != 1 or padding != 0:
        return None
    if len(image.dims) != 4 or not is_one(image.dims[0]) or image.channel != 1:
        return None
    blocks = ImageMap(image.dims[1:], 0, lambda i, p: image.at(i, [torch.zeros_like(i), *p]), image.total)
    return _unsqueeze(input.made(blocks.in_blocks(kernel_size)), 0)


def _kept(each: EachTensor, *args: Any, **kwargs: Any) -> EachTensor:
    image = each.image
    at = image.at if not args and not kwargs else lambda i, places: image.at(i, places).to(*args, **kwargs)
    like = each.like.to(*args, **kwargs) if args or kwargs else each.like
    return EachTensor(ImageMap(image.dims, image.channel, at, image.total), like, each.images)


def _meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[EachTensor, ...] | None:
    if indexing != "ij" or not all(isinstance(t, EachTensor) and len(t.image.dims) == 1 for t in tensors):
        return None
    dims = tuple(t.image.dims[0] for t in tensors)

    def along(d: int) -> EachTensor:
        image = tensors[d].image
        return EachTensor(ImageMap(dims, None, lambda i, p: image.at(i, [p[d]])), tensors[d].like, tensors[d].images)

    return tuple(map(along, range(len(dims))))


def _stack(tensors: Any, dim: int = 0) -> EachTensor | None:
    maps = [t.image for t in tensors if isinstance(t, EachTensor) and t.image.channel is None]
    if len(maps) != len(tensors) or dim != -1:
        return None
    dims = (*maps[0].dims, len(maps))
    joined = ImageMap(
        dims, len(dims) - 1, lambda i, places: torch.stack([m.at(i, places) for m in maps], -1), maps[0].total
    )
    return tensors[0].made(joined)


def _cat(tensors: Any, dim: int = 0) -> Tensor | None:
    """The rows of all images, where there is nothing else."""
    alone = tensors[0] if isinstance(tensors, (list, tuple)) and len(tensors) == 1 else None
    if not isinstance(alone, EachTensor) or dim != 0 or alone.image.axes != [0]:
        return None
    return alone.images.joined(alone.image)


def _shape(each: EachTensor) -> tuple[Any, ...]:
    return each.image.dims


def _size(each: EachTensor, dim: int | None = None) -> Any:
    return each.image.dims if dim is None else each.image.dims[dim]


_FOR_EACH: dict[str, Callable[..., Any]] = {
    "shape": _shape,
    "size": _size,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "T": _transpose,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "unsqueeze": _unsqueeze,
    "__getitem__": _sliced,
    "unfold": _unfold,
    "contiguous": _kept,
    "to": _kept,
    "meshgrid": _meshgrid,
    "stack": _stack,
    "cat": _cat,
}


# ---- the mask that keeps images apart


def block_mask(counts: EachNumber, rows: Tensor) -> Tensor:
    """`generate_block_attention_mask`: `[1, 1, total, total]` of zeros within an image; others are least numbers."""
    total, ends = rows.shape[1], counts.values.cumsum(0)
    image = torch.searchsorted(ends, torch.arange(total, device=rows.device), right=True)
    apart = torch.full((total, total), torch.finfo(rows.dtype).min, dtype=rows.dtype, device=rows.device)
    mask = torch.where(image[:, None] == image[None], torch.zeros_like(apart), apart)
    return mask[None, None].expand(rows.shape[0], 1, -1, -1)


def _masking(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def mask(counts: Any, rows: Tensor) -> Tensor:
        known = len(counts) == 1 and isinstance(counts[0], EachNumber)
        return block_mask(counts[0], rows) if known else plain(counts, rows)

    return mask


def _modules_with(name: str) -> list[ModuleType]:
    return [m for m in list(sys.modules.values()) if isinstance(m, ModuleType) and callable(vars(m).get(name))]


def mask_is_known() -> bool:
    """Whether functions of transformers that keep images apart by a mask make the one that is recorded in its place."""
    return all(_makes_blocks(getattr(module, _MASK)) for module in _modules_with(_MASK) if module.__name__ != __name__)


@cache
def _makes_blocks(function: Callable[..., Any]) -> bool:
    try:
        wanted = function([2, 1, 3], torch.zeros(2, 6, 4))
    except Exception:  # of another version of transformers
        return False
    return torch.equal(wanted, block_mask(EachNumber(torch.tensor([2, 1, 3])), torch.zeros(2, 6, 4)))
