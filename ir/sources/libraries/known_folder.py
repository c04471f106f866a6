"""A folder of another library than transformers, read with that: what it says of itself, and the source that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.capture.sizes.dynamic import DynamicShapes
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.formats.json_text import parsed_json
from ir.errors import SourceError, in_one_line
from ir.sources.meta import lost_values, moved_to_meta, parameters_on_meta
from ir.sources.source import Reading, Source, opened


@dataclass(frozen=True)
class LibraryCall:
    """The example call of a model, by keyword, and the sizes that may change."""

    inputs: Mapping[str, Any]
    dynamic: DynamicShapes


@dataclass(frozen=True)
class LibraryFolder:
    """A folder that a library wrote: how its model is made, called, and loaded by the library itself."""

    path: Path
    library: str  # as Python imports it
    package: str  # as pip calls it
    make: Callable[[Any], nn.Module]  # of the imported library, without its weights
    call: Callable[[Any], LibraryCall]  # of the model
    load: Callable[[Any], nn.Module]  # of the imported library, weights and all
    weights: Path  # a file, or the folder

    def read(self, reading: Reading) -> Source:
        """The source.  Raises SourceError for a library that is not installed, or that cannot make the model."""
        library = self._imported()
        checkpoint = opened(reading.checkpoint or self.weights, reading) if reading.weights else None
        dtype = reading.dtype or _stored_dtype(checkpoint)
        try:
            model = nn.Module.to(self._made(library).eval(), dtype)  # diffusers' own warns at each call
            call = self.call(model)
        except SourceError as e:
            raise SourceError(
                f"{self.path}: {e}; give a model file that makes the model and its inputs, and names the folder as "
                "`checkpoint`"
            ) from e
        except Exception as e:
            raise SourceError(f"{self.library} makes no model of {self.path}: {in_one_line(e)}") from e
        weights: Mapping[str, Any] = {}
        if checkpoint is not None:
            weights = checkpoint.for_model(model).held_by(model, reading.keep_quantized)
        return Source(
            name=self.path.resolve().name,
            model=model,
            args=(),
            kwargs=_in_dtype(call.inputs, dtype),
            dynamic_shapes=call.dynamic,
            weights=weights,
            notes=weights.notes if isinstance(weights, Checkpoint) else (),
            made_up=True,
            soft=True,
            library=partial(self._loaded, library, dtype) if _is_plain(checkpoint, reading) else None,
        )

    def _made(self, library: Any) -> nn.Module:
        """The model without memory for its weights.

        It is made in memory first where buffers are on the weights' device, as masks of windows.
        """
        with suppress(Exception):  # of code that needs values
            with parameters_on_meta():
                model = self.make(library)
            if not lost_values(model):
                return model
        return moved_to_meta(self.make(library))

    def _loaded(self, library: Any, dtype: torch.dtype) -> nn.Module:
        """The model as the library itself loads it."""
        return nn.Module.to(self.load(library).eval(), dtype)

    def _imported(self) -> Any:
        try:
            return import_module(self.library)
        except ImportError as e:
            how = f"pip install {self.package}"
            raise SourceError(f"{self.path} is of the library {self.library}, which is not here ({e}); {how}") from e


def settings_of(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        found = parsed_json(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_plain(checkpoint: Checkpoint | None, reading: Reading) -> bool:
    """Whether the library itself would load the same weights."""
    chosen = reading.checkpoint or reading.prefix or reading.variant
    return checkpoint is not None and checkpoint.quantization is None and not checkpoint.adapters and not chosen


def _stored_dtype(checkpoint: Checkpoint | None) -> torch.dtype:
    """The dtype of the first floating-point tensor that is stored."""
    dtypes = (tensor.dtype for tensor in checkpoint.tensors.values()) if checkpoint is not None else ()
    return next((dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize > 1), torch.float32)


def _in_dtype(given: Any, dtype: torch.dtype) -> Any:
    """The inputs of a call in a model's dtype, but for single numbers, which libraries give as Python's."""
    match given:
        case torch.Tensor() if given.is_floating_point() and given.dim():
            return given.to(dtype)
        case Mapping():
            return {name: _in_dtype(value, dtype) for name, value in given.items()}
    return given
