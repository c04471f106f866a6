"""The source of a compilation: a module in memory, or what the user named, as options say it is to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from codegen.artifact.cut_again import is_artifact_folder, read_artifact
from ir.capture.sizes.dynamic import DynamicShapes, merged_shapes, parse_dynamic
from ir.checkpoint.adapters.settings import SETTINGS
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.names import own_tensors
from ir.errors import CompileError, SourceError
from ir.objects.signature import forward_parameters
from ir.sources import Reading, Source, opened, read_source, uncompiled
from ir.sources.adapter_choice import require_choice, with_adapter_choice
from ir.sources.decoder.made import step_of
from ir.sources.examples.example_sizes import with_example_sizes
from ir.sources.examples.variants import with_fixed_inputs, with_shapes_of, with_variants
from ir.sources.kept import find_source, key_of
from passes.options.options import Options, Quantized, Weights, reading_options

KEEP_ADAPTERS = Path("keep")
"""The value of the option `adapter` by which adapters stay beside the weights."""


def read_given(
    source_or_model: str | Path | nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    options: Options,
    variants: Mapping[str, Any] | None = None,
) -> Source:
    """A module that is called as `model(*args, **kwargs)`, or a model file, checkpoint folder or .pt2.

    `variants` are further calls, by name.  A checkpoint folder that was planned before comes with its graph and without
    its model, unless options ask for that.

    Raises SourceError that says what is missing, and where.
    """
    if isinstance(source_or_model, (str, Path)) and is_artifact_folder(Path(source_or_model)):
        return _of_artifact(Path(source_or_model), options)
    key = _key(source_or_model, args, kwargs, options, variants)
    known = None if options.verify else find_source(key)
    return known or replace(_made(source_or_model, args, kwargs, options, variants), key=key)


_FOR_GRAPHS = ("cache", "weights", "sequences", "tokens", "attention", "trust_remote_code")


def _of_artifact(folder: Path, options: Options) -> Source:
    """The graph and the weights of an artifact.  Raises SourceError for options that its graph has settled."""
    settled = [name for name in reading_options() if name not in (*_FOR_GRAPHS, "generate")]
    given = [name for name in (*settled, "verify") if getattr(options, name) != getattr(Options, name)]
    if given:
        raise SourceError(
            f"{folder} is cut already, and its graph stays as it is: leave out {given[0].replace('_', '-')}, or "
            "compile the model itself"
        )
    source = read_artifact(folder, options.weights is not Weights.none, options.trust_remote_code)
    if options.generate and not source.decoding.page:
        raise SourceError(f"{folder} continues no texts: its model was not compiled with --generate")
    return source


def _key(source_or_model: Any, args: Any, kwargs: Any, options: Options, variants: Any) -> str:
    """The key of a folder whose graph may be kept; empty for all else."""
    named = isinstance(source_or_model, (str, Path)) and options.cache and not options.trust_remote_code
    if not named or kwargs or variants or not isinstance(args, Sequence) or len(args):
        return ""
    if options.adapter or (Path(source_or_model) / SETTINGS).is_file():  # the weights are in other folders, too
        return ""
    weights = None if options.checkpoint is None else Path(options.checkpoint)
    return key_of(Path(source_or_model), [getattr(options, name) for name in reading_options()], weights)


def _made(
    source_or_model: str | Path | nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    options: Options,
    variants: Mapping[str, Any] | None,
) -> Source:
    source = with_adapter_choice(_read(source_or_model, args, kwargs, options))
    if KEEP_ADAPTERS in options.adapter and not source.adapters:
        raise SourceError("--adapter keep has no adapter to keep: name its folder, and plan with the weights")
    if variants is not None and not isinstance(variants, Mapping):
        raise SourceError(f"variants is a {type(variants).__name__}; give a dict of calls by name")
    called = require_choice(with_variants(source, _in_dtype(variants or {}, options)))
    fixed = with_fixed_inputs(called, options.fix)
    return _step(fixed, options) if options.generate else with_example_sizes(fixed, dict(options.example))


def _step(source: Source, options: Options) -> Source:
    """The step of a decoder.  Raises SourceError for what does not go with it."""
    if options.example or options.dynamic_shapes is not None:
        raise SourceError("--generate knows how a decoder is called; it goes without --dynamic and --example")
    return step_of(source, options.max_length, options.page)


def _read(
    source_or_model: str | Path | nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, options: Options
) -> Source:
    shapes = _shapes(options)
    match source_or_model:
        case nn.Module():
            _check_call(args, kwargs)
            return _in_memory(source_or_model, args, kwargs, shapes, options)
        case str() | Path():
            if kwargs or not isinstance(args, Sequence) or len(args):
                raise SourceError(f"{source_or_model} says itself how it is called; args and kwargs go with a module")
            return _with_shapes(read_source(str(source_or_model), _reading(options)), shapes)
    raise SourceError(
        f"the model is a {type(source_or_model).__name__}; give a torch.nn.Module, or the path of a model file, "
        "a checkpoint folder or a .pt2"
    )


def _check_call(args: Any, kwargs: Any) -> None:
    """Raises SourceError for arguments that are no arguments."""
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise SourceError(f"args is a {type(args).__name__}; give a tuple of the model's positional arguments, as (x,)")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise SourceError(f"kwargs is a {type(kwargs).__name__}; give a dict of the model's arguments by name")


def _reading(options: Options) -> Reading:
    return Reading(
        _dtype(options),
        options.trust_remote_code,
        weights=options.weights is not Weights.none,
        padding=options.padding,
        checkpoint=options.checkpoint,
        generate=options.generate,
        prefix=options.weights_prefix,
        variant=options.variant,
        adapters=tuple(folder for folder in options.adapter if folder != KEEP_ADAPTERS),
        keep_adapters=KEEP_ADAPTERS in options.adapter,
        keep_quantized=options.quantized is Quantized.keep,
    )


def _dtype(options: Options) -> torch.dtype | None:
    return None if options.dtype is None else getattr(torch, options.dtype.value)


def _shapes(options: Options) -> DynamicShapes:
    """The dynamic shapes; texts such as `input_ids:0=batch,1=seq` are read."""
    shapes = options.dynamic_shapes
    if shapes is None or isinstance(shapes, Mapping) or not all(isinstance(item, str) for item in shapes):
        return shapes
    named: dict[str, Any] = {}
    for item in shapes:
        try:
            name, dims = parse_dynamic(str(item))
        except ValueError as e:
            raise CompileError(f"--dynamic: {e}") from e
        named.setdefault(name, {}).update(dims)
    return named or None


def _with_shapes(source: Source, shapes: DynamicShapes) -> Source:
    """Sizes that the user names replace those that were made up for a source, and join those that it declares."""
    if shapes is None:
        return source
    declared = source.dynamic_shapes
    if isinstance(declared, (list, tuple)):
        declared = dict(zip((p.name for p in forward_parameters(source.model)), declared, strict=False))
    if isinstance(shapes, Mapping) and isinstance(declared, Mapping) and not source.soft:
        shapes = merged_shapes(declared, shapes)
    shaped = replace(source, dynamic_shapes=shapes, soft=False)
    return replace(shaped, variants=tuple(with_shapes_of(shaped, variant) for variant in source.variants))


def _in_memory(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    shapes: DynamicShapes,
    options: Options,
) -> Source:
    """A module, and how it is called; one whose dtype is to change is copied first."""
    model = uncompiled(model)
    stored = None if options.checkpoint is None else _stored(model, options.checkpoint, options)
    if options.adapter and stored is None:
        raise SourceError("an adapter is merged into the weights of a checkpoint; name it, as in checkpoint=…")
    positional = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    if (dtype := _dtype(options)) is not None:
        model = deepcopy(model).to(dtype)
    return Source(
        name=type(model).__name__,
        model=model,
        args=_in_dtype(positional, options),
        kwargs=_in_dtype(dict(kwargs or {}), options),
        dynamic_shapes=shapes,
        weights=own_tensors(model) if stored is None else stored,
        notes=() if stored is None else stored.notes,
    )


def _stored(model: nn.Module, path: Path, options: Options) -> Checkpoint:
    """The weights of a module that is the user's own, and stays as it is: quantized ones are dequantized."""
    return opened(path, _reading(options)).for_model(model).held_by(model, as_stored=False)


def _in_dtype(arguments: Any, options: Options) -> Any:
    dtype = _dtype(options)
    return arguments if dtype is None else tree_map(partial(_cast, dtype), arguments)


def _cast(dtype: torch.dtype, leaf: Any) -> Any:
    return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
