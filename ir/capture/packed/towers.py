"""Vision towers of transformers that take several images one after the other, and their grids beside them.

What `transformers.vision_utils` computes of grids in Python is recorded as operators: see `grids`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ir.capture.packed import grids
from ir.capture.packed.pieces import is_unknown

_UTILITIES = "transformers.vision_utils"
_GRID = "grid_thw"  # the parameter of a tower, and of these functions


def takes_grids(model: nn.Module) -> bool:
    """Whether a module of the model is a tower that takes patches with the grids of their images."""
    return any(_is_tower(module) for module in model.modules())


def _is_tower(module: nn.Module) -> bool:
    return _GRID in inspect.signature(module.forward).parameters


@contextmanager
def grids_as_operators(
    model: nn.Module, inputs: Mapping[int, str], seen: Callable[[str, Any, int], bool]
) -> Iterator[None]:
    """Record what is computed of an input that is a grid without values as operators, inside the context.

    `inputs` are names by id of the tensor; `seen` is given that of a grid, the number of its patches, and how many
    rows and columns of them make a token, and says whether a call can be checked for that.
    """
    towers = _Towers(inputs, seen)
    with ExitStack() as contexts:
        for module in filter(_is_tower, model.modules()):
            contexts.callback(module.register_forward_pre_hook(towers.note, with_kwargs=True).remove)
        for name, original in known_functions().items():
            other = towers.knowing(original, _FUNCTIONS[name])
            for holder in [m for m in sys.modules.values() if _holds(m, name, original)]:
                contexts.enter_context(patch.object(holder, name, other))
        yield


def _holds(module: Any, name: str, function: Any) -> bool:
    return isinstance(module, ModuleType) and vars(module).get(name) is function


@dataclass(frozen=True)
class _Towers:
    """The towers that were called, by what they were given."""

    inputs: Mapping[int, str]
    seen: Callable[[str, Any, int], bool]
    totals: dict[int, tuple[Tensor, Any]] = field(default_factory=dict)  # by id: the grid and the number of its patches

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the grid of a call, and the number of patches, which are the first tensor."""
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        grid, patches = given.get(_GRID), next((t for t in given.values() if isinstance(t, Tensor)), None)
        if isinstance(grid, Tensor) and is_unknown(grid) and patches is not None and patches is not grid:
            self.totals[id(grid)] = grid, patches.shape[0]

    def knowing(self, original: Callable[..., Any], instead: _Instead) -> Callable[..., Any]:
        """A function that computes the same by operators where it is given the grid of a tower that was called."""
        signature = inspect.signature(original)

        @wraps(original)
        def made(*args: Any, **kwargs: Any) -> Any:
            given = _arguments(signature, *args, **kwargs)
            beside = given["kwargs"] or {}
            computed_before = any(beside.get(key) is not None for key in instead.keys)
            if computed_before or (known := self._known(given)) is None:
                return original(*args, **kwargs)
            for key in instead.keys:
                beside.pop(key, None)
            return instead.make(*known, given)

        return made

    def _known(self, given: Mapping[str, Any]) -> tuple[Tensor, Any] | None:
        """The grid and the number of its patches, where a call can be checked for both."""
        key, merge = id(given[_GRID]), given.get("spatial_merge_size", 1)
        if key not in self.totals or key not in self.inputs:
            return None
        checked = self.seen(self.inputs[key], self.totals[key][1], merge if isinstance(merge, int) else 1)
        return self.totals[key] if checked else None


def _segments(grid: Tensor, total: Any, given: Mapping[str, Any]) -> Tensor:
    return grids.segments(grid, total, given["merge_temporal"])


def _positions(grid: Tensor, total: Any, given: Mapping[str, Any]) -> Tensor:
    return grids.positions(grid, total, given["spatial_merge_size"], given["include_temporal"])


def _windows(grid: Tensor, total: Any, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    merge = given["spatial_merge_size"]
    return grids.windows(grid, total, merge, given["window_size"] // merge // given["patch_size"])


def _taps(grid: Tensor, total: Any, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    side, terms = given["num_grid_per_side"], (given["mode"], given["align_corners"], given["padding"])

    def along(index: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return sys.modules[_UTILITIES]._interpolation_axis_taps_weights(index, size, side, *terms)

    return grids.taps(grid, total, along, side, given["spatial_merge_size"])


@dataclass(frozen=True)
class _Instead:
    """The operators that are recorded instead of a function."""

    keys: tuple[str, ...]  # what a caller may give the function in its keyword arguments, computed before
    make: Callable[[Tensor, Any, Mapping[str, Any]], Any]  # of the grid, the number of patches and all arguments
    tried: tuple[Mapping[str, Any], ...]  # arguments with which both are tried


_MERGED: Mapping[str, Any] = {"spatial_merge_size": 2}
_TABLE: Mapping[str, Any] = {"num_grid_per_side": 7}
_FUNCTIONS: dict[str, _Instead] = {
    "get_vision_cu_seqlens": _Instead(("cu_seqlens",), _segments, ({}, {"merge_temporal": True})),
    "get_vision_position_ids": _Instead(
        ("position_ids",), _positions, (_MERGED, {**_MERGED, "include_temporal": True})
    ),
    "get_vision_window_index": _Instead(
        ("window_index", "cu_window_seqlens"), _windows, ({**_MERGED, "window_size": 16, "patch_size": 2},)
    ),
    "get_vision_interpolation_indices_and_weights": _Instead(
        ("interp_indices", "interp_weights"), _taps, (_TABLE, {**_TABLE, **_MERGED, "align_corners": True})
    ),
}


def known_functions() -> Mapping[str, Callable[..., Any]]:
    """The functions of transformers for which operators can be recorded: they give the same numbers for a few grids."""
    return {} if (utilities := sys.modules.get(_UTILITIES)) is None else _known_among(utilities)


@cache
def _known_among(utilities: ModuleType) -> Mapping[str, Callable[..., Any]]:
    found = {name: getattr(utilities, name, None) for name in _FUNCTIONS}
    return {n: function for n, function in found.items() if function is not None and _agree(function, _FUNCTIONS[n])}


def _agree(function: Callable[..., Any], instead: _Instead) -> bool:
    grid, signature = torch.tensor([[1, 4, 6], [2, 10, 4], [1, 2, 2]]), inspect.signature(function)
    try:
        for given in instead.tried:
            wanted = function(grid, **given)
            made = instead.make(grid, int(grid.prod(1).sum()), _arguments(signature, grid, **given))
            if not all(map(_same, *((x if isinstance(x, tuple) else (x,)) for x in (wanted, made)))):
                return False
    except Exception:  # of another version of transformers
        return False
    return True


def _same(wanted: Tensor, made: Tensor) -> bool:
    """Whether numbers are the same, but for the repeats that boundaries end in."""
    return torch.equal(wanted, torch.unique_consecutive(made) if made.dtype is torch.int32 else made)


def _arguments(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    call = signature.bind(*args, **kwargs)
    call.apply_defaults()
    return call.arguments
