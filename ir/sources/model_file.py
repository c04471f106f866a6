"""A Python file that defines `model` and `example_inputs`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.names import own_tensors
from ir.checkpoint.ties import untie
from ir.errors import SourceError
from ir.sources.examples.variants import with_variants
from ir.sources.meta import lost_values, parameters_on_meta
from ir.sources.neighbours import own_packages
from ir.sources.source import Reading, Source, Variant, opened, uncompiled

_NOTHING: Mapping[str, Any] = {}


def read_model_file(path: Path, reading: Reading, function: str = "model") -> Source:
    """Read a file that defines `model` (a module, or a function that makes one) and `example_inputs`.

    The latter is a tuple, a dict, or a function that makes one.  The file may define `dynamic_shapes`, `checkpoint`
    and `variants`, a dict of further such inputs by name.
    Raises SourceError that names the file, the line and what is missing.
    """
    with _blaming(path):
        module = _import(path)
    stored = reading.checkpoint or _beside(path, getattr(module, "checkpoint", None))
    whole = stored is None and reading.weights
    model, notes = (_model(module, function, path), ()) if whole else _light_model(module, function, path)
    # Opened when the model is made, which may be what writes the file.
    checkpoint = None if stored is None or not reading.weights else opened(stored, reading)
    if stored is None and (option := reading.of_checkpoint):
        raise SourceError(f"{path} has its weights in memory; {option} is for those of a `checkpoint`")
    args, kwargs = _inputs(module, path, reading, {})
    model = model if reading.dtype is None else model.to(reading.dtype)
    weights = own_tensors(model) if checkpoint is None else checkpoint.for_model(model)
    apart = untie(model, weights.tensors) if reading.adapters and isinstance(weights, Checkpoint) else ()
    source = Source(
        name=path.stem,
        model=model,
        args=args,
        kwargs=kwargs,
        dynamic_shapes=getattr(module, "dynamic_shapes", None),
        weights=weights,
        notes=(*notes, *apart),
        example_for=partial(_example_for, module, path, reading),
        quantized=partial(_quantized, reading),
    )
    source = source if reading.generate else source.as_stored
    return with_variants(source, dict(_variants(module, path, reading)))


def _quantized(reading: Reading, source: Source) -> Source:
    """Have a model hold its weights as its checkpoint stores them, if there is one, with its notes."""
    if not isinstance(source.weights, Checkpoint):
        return source
    weights = source.weights.held_by(source.model, reading.keep_quantized)
    return replace(source, weights=weights, notes=(*source.notes, *weights.notes))


def _inputs(
    module: ModuleType, path: Path, reading: Reading, values: Mapping[str, torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of the example; `values` are for the function that makes it."""
    if reading.generate and not hasattr(module, "example_inputs"):
        return (), {}  # a decoder's step makes its own
    inputs = _made(module, "example_inputs", path, values)
    if not isinstance(inputs, (tuple, list, Mapping)):
        raise SourceError(
            f"`example_inputs` in {path} is a {type(inputs).__name__}; make it a tuple (positional arguments), a dict "
            "(keyword arguments), or a function that returns one"
        )
    inputs = _in_dtype(inputs, reading)
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def _example_for(
    module: ModuleType, path: Path, reading: Reading, values: Mapping[str, torch.Tensor]
) -> Variant | None:
    """The example inputs for values of some inputs, where the function that makes them takes all of these by name."""
    made = getattr(module, "example_inputs", None)
    if not callable(made):
        return None
    taken = inspect.signature(made).parameters.values()
    if not {p.name for p in taken} >= set(values) and not any(p.kind is p.VAR_KEYWORD for p in taken):
        return None
    args, kwargs = _inputs(module, path, reading, values)
    return Variant("", args, kwargs, getattr(module, "dynamic_shapes", None))


def _variants(module: ModuleType, path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    """The arguments of each of the file's `variants`, by name.  Raises SourceError."""
    given = getattr(module, "variants", {})
    if not isinstance(given, Mapping):
        raise SourceError(
            f"`variants` in {path} is a {type(given).__name__}; make it a dict from names to arguments as "
            "`example_inputs` has them"
        )
    for name, inputs in given.items():
        with _blaming(path), own_packages(path.parent):
            yield name, _in_dtype(inputs() if callable(inputs) else inputs, reading)


def _in_dtype(inputs: Any, reading: Reading) -> Any:
    return inputs if reading.dtype is None else tree_map(partial(_cast, reading.dtype), inputs)


def _beside(path: Path, checkpoint: object) -> Path | None:
    """The checkpoint that a file names; not what it imports under that name, as from torch.utils."""
    if checkpoint is None or callable(checkpoint) or isinstance(checkpoint, ModuleType):
        return None
    if not isinstance(checkpoint, str | PathLike):
        raise SourceError(f"`checkpoint` in {path} is a {type(checkpoint).__name__}; make it the path of the weights")
    return path.parent / checkpoint


def _model(module: ModuleType, name: str, path: Path) -> nn.Module:
    model = _made(module, name, path)
    if not isinstance(model, nn.Module):
        raise SourceError(f"`{name}` in {path} is a {type(model).__name__}, not a torch.nn.Module")
    return uncompiled(model)


def _light_model(module: ModuleType, name: str, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its parameters on the meta device; or else in memory, and a note that says why."""
    try:
        with parameters_on_meta():
            model = _model(module, name, path)
        lost = lost_values(model)
        why = f"{lost[0]} is computed from weights" if lost else ""
    except SourceError as e:
        model, why = None, str(e)
    if model is not None and not why:
        return model, ()
    return _model(module, name, path), (f"the model was made in memory, weights and all: {why}",)


def _cast(dtype: torch.dtype, leaf: Any) -> Any:
    return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _import(path: Path) -> ModuleType:
    """Import a file as a module under its name; modules beside it can be imported, too."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_model"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent.resolve()))  # for good: the model may import when it is made, or run
    with own_packages(path.parent):
        spec.loader.exec_module(module)
    return module


def _made(module: ModuleType, name: str, path: Path, given: Mapping[str, Any] = _NOTHING) -> Any:
    """A value that the file defines, or the result of the function of that name, called with what is given.

    Raises SourceError.
    """
    if not hasattr(module, name):
        raise SourceError(f"{path} defines no `{name}`; {_HOW}")
    value: Any | Callable[[], Any] = getattr(module, name)
    if isinstance(value, nn.Module) or not callable(value):
        return value
    if inspect.isclass(value) and not issubclass(value, nn.Module):
        return value
    with _blaming(path), own_packages(path.parent):
        return value(**given)


_HOW = (
    "a model file has `model` (a torch.nn.Module, or a function that makes one) and `example_inputs` (a tuple, a "
    "dict, or a function that makes one)"
)


_IMPORTED = 'a model file is imported: have what a script does behind `if __name__ == "__main__":`'


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn errors of the user's code into a SourceError with the line of the file; it is run without arguments."""
    try:
        with patch.object(sys, "argv", [str(path)]):
            yield
    except (Exception, SystemExit) as e:
        if isinstance(e, SyntaxError):
            line = e.lineno
        else:
            lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if Path(f.filename) == path.absolute()]
            lines += [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
            line = lines[-1] if lines else None
        place = f"{path}:{line}" if line else str(path)
        advice = f"; {_IMPORTED}" if isinstance(e, SystemExit) else ""
        raise SourceError(f"{place} raised {type(e).__name__}: {e}{advice}") from e
