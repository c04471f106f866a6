"""Images that are padding where all of their pixels are zeros, recorded behind the others: none is left out.

`x[real]` is all rows of `x`, the real ones first in their order, so that no size depends on which they are.  What
reads the rows must read no more than there are real ones, which a call is checked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from math import prod
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ir.capture.packed.pieces import is_unknown
from ir.capture.packed.rows import ChosenRows, mask_in, put_in_place

FEATURES, PIXELS, MASK = "get_image_features", "pixel_values", "pixel_attention_mask"
_SHAPE = getattr(torch.Tensor, "shape").__get__  # noqa: B009  # as a property, not as a size
_GET, _SET = torch.Tensor.__getitem__, torch.Tensor.__setitem__
_SAME_ELEMENTS = {"unsqueeze", "to", "expand", "expand_as", "view", "reshape", "bool"}


class PaddingSeen(Protocol):
    """Notes on images of which some are padding."""

    def padding(self, total: Any) -> None:
        """Images, so many in all, that are packed with padding behind the others."""

    def features(self, made: Sequence[Tensor]) -> None:
        """Tensors that are made of packed images."""

    def real_rows(self, images: str, ids: str, value: int, rows: Any, total: Any) -> None:
        """Rows of the real images in the input `images`, as many as the input `ids` has a value.

        There are `rows` of all images, `total` in number.
        """


def leave_out_padding(model: nn.Module) -> list[nn.Module]:
    """The modules that make features of images `[texts, images, …]` and leave out those that are all zeros."""
    return [module for module in model.modules() if _takes_padding(module) and _leaves_out_zeros(module)]


def _takes_padding(module: nn.Module) -> bool:
    features = getattr(module, FEATURES, None)
    return features is not None and {PIXELS, MASK} <= inspect.signature(features).parameters.keys()


class _MaskError(Exception):
    """The end of a call that has told which images it takes."""


class _FirstMask(TorchFunctionMode):
    """Ends a call at the first tensor of which a mask chooses rows, and keeps the mask."""

    mask: Tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _GET and isinstance(args[1], Tensor) and args[1].dtype is torch.bool:
            self.mask = args[1]
            raise _MaskError
        return func(*args, **(kwargs or {}))


def _leaves_out_zeros(module: nn.Module) -> bool:
    """Whether the module's own code, run on a few images, chooses those with a number that is not zero."""
    pixels = torch.zeros(2, 3, 3, 4, 4)
    pixels[0, 0], pixels[0, 2, 1, 3, 2], pixels[1, 1, 0, 0, 0] = 1.0, 0.5, -1.0
    first = _FirstMask()
    with suppress(Exception), torch.no_grad(), first:  # whatever the code of another model raises
        getattr(module, FEATURES)(**{PIXELS: pixels, MASK: torch.ones(2, 3, 4, 4, dtype=torch.int64)})
    wanted = (pixels != 0).flatten(2).any(-1).flatten()
    return hasattr(first, "mask") and torch.equal(first.mask, wanted)


@contextmanager
def padding_behind(modules: Sequence[nn.Module], inputs: Mapping[int, str], seen: PaddingSeen) -> Iterator[None]:
    """Record the images that are no padding as all of them, padding behind the others, inside the context.

    `modules` are those that `leave_out_padding`; `inputs` are names by id of the tensor.
    """
    mode = _PaddingBehind(inputs, seen)
    with ExitStack() as contexts:
        contexts.enter_context(mode)
        for module in modules:
            contexts.enter_context(patch.object(module, FEATURES, mode.within(getattr(module, FEATURES))))
        yield


def _tensors(result: Any) -> list[Tensor]:
    """The tensors in a result, which may be a dict of fields and have attributes, as transformers' have."""
    held = [*result.values(), *getattr(result, "__dict__", {}).values()] if isinstance(result, Mapping) else result
    leaves = tree_leaves(held)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


class SizesOfAny(tuple[Any, ...]):
    """SizesOfAny of a tensor, whose product is no number where one of them may change, as `torch.Size.numel` has it."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return SizesOfAny(found) if isinstance(index, slice) else found

    def numel(self) -> Any:
        return prod(self)


class _PaddingBehind(TorchFunctionMode):
    """Packs rows of images in code that makes features of them, and keeps rows that other masks choose in place."""

    def __init__(self, inputs: Mapping[int, str], seen: PaddingSeen) -> None:
        super().__init__()
        self._inputs, self._seen = inputs, seen
        self._inside = False
        self._images = ""  # the input whose images are packed
        self._real: tuple[Tensor, Tensor] | None = None  # which are real, and the order of all
        self._places: dict[int, tuple[Tensor, str, int]] = {}  # by id: where an input has a value

    def within(self, features: Callable[..., Any]) -> Callable[..., Any]:
        """The method that makes features, with its images packed where they are an input."""
        signature = inspect.signature(features)

        @wraps(features)
        def made(*args: Any, **kwargs: Any) -> Any:
            pixels = signature.bind(*args, **kwargs).arguments.get(PIXELS)
            if self._images or id(pixels) not in self._inputs or not is_unknown(pixels):
                return features(*args, **kwargs)
            self._inside, self._images = True, self._inputs[id(pixels)]
            try:
                result = features(*args, **kwargs)
            finally:
                self._inside = False
            self._seen.features(_tensors(result))
            return result

        return made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func == _SHAPE and self._inside:
            return SizesOfAny(func(*args))
        if func is _GET and self._images and (rows := self._rows(*args)) is not None:
            return rows
        if func is _SET and isinstance(args[2], ChosenRows) and put_in_place(*args):
            return None
        if name == "masked_scatter" and len(args) == 3:
            self._read(args[1], args[2].numel() // args[0].shape[-1])
        made = func(*args, **(kwargs or {}))
        self._note_places(name, args, made)
        return made

    def _rows(self, tensor: Tensor, index: Any) -> Tensor | None:
        """Rows that a mask without values chooses; None for any other index."""
        parts = index if isinstance(index, tuple) else (index,)
        if isinstance(parts[0], ChosenRows):
            return self._at_chosen(tensor, parts)
        if (mask := mask_in(tensor, index)) is None:
            return None
        if self._inside and mask.dim() == 1:
            return self._packed(tensor, mask)
        return ChosenRows(tensor, mask, lambda count: False)

    def _packed(self, tensor: Tensor, mask: Tensor) -> Tensor | None:
        """All rows, those first for which the mask is true; None for a second mask."""
        if self._real is None:
            self._real = mask, (~mask).long().argsort(stable=True)
            self._seen.padding(mask.shape[0])
        return tensor[self._real[1]] if self._real[0] is mask else None

    def _at_chosen(self, tensor: Tensor, parts: Sequence[Any]) -> Tensor | None:
        """Rows of images at the indices of one, and of a row in it, that a mask chose; None for any other index."""
        chosen = [part for part in parts if isinstance(part, ChosenRows)]
        mask = chosen[0].mask
        whole = len(chosen) == 2 and all(part == slice(None) for part in parts[2:])
        if not whole or any(part.mask is not mask or part.whole.shape != mask.shape for part in chosen):
            return None
        self._read(mask, tensor.shape[0] * tensor.shape[1])
        return ChosenRows(tensor[tuple(torch.where(mask, part.whole, 0) for part in chosen)], mask, lambda count: False)

    def _note_places(self, name: str, args: Any, made: Any) -> None:
        """Note where an input has a value, in whatever shape."""
        if name in ("eq", "__eq__") and len(args) == 2 and isinstance(args[1], int) and id(args[0]) in self._inputs:
            self._places[id(made)] = made, self._inputs[id(args[0])], args[1]
        elif name in _SAME_ELEMENTS and args and id(args[0]) in self._places and made.dtype is torch.bool:
            self._places[id(made)] = made, *self._places[id(args[0])][1:]

    def _read(self, places: Tensor, rows: Any) -> None:
        """Note that of `rows` of all images as many are read as an input has places."""
        if self._real is not None and id(places) in self._places:
            _, name, value = self._places[id(places)]
            self._seen.real_rows(self._images, name, value, rows, self._real[0].shape[0])
