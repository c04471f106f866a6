"""Source, which every kind of source is read as, and Reading, the options of reading one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.capture.sizes.dynamic import DynamicShapes
from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.checkpoint import Checkpoint
from ir.decoding import Decoding
from ir.graph import Graph
from ir.objects.signature import Signature


@dataclass(frozen=True)
class Reading:
    """The options of reading a source."""

    dtype: torch.dtype | None = None  # of the floating-point weights; None: as the source has them
    trust_remote_code: bool = False  # whether Python files inside a checkpoint folder may run
    weights: bool = True  # whether the values of the weights are needed
    padding: bool = True  # whether texts of a batch may be padded, so that a checkpoint's model is called with a mask
    checkpoint: Path | None = None  # in place of the weights that a model file or a folder names or holds
    generate: bool = False  # whether the model is to continue texts, with a cache
    prefix: str = ""  # of the names of the checkpoint's weights that are meant
    variant: str = ""  # of the checkpoint's files, such as fp16
    adapters: tuple[Path, ...] = ()  # folders of LoRA adapters, which are merged into the weights
    opened_adapters: tuple[Adapter, ...] = ()  # those that are read already, as LoRA of a pipeline's model
    keep_adapters: bool = False  # whether adapters stay beside the weights instead, for rows to choose from
    keep_quantized: bool = True  # whether quantized weights stay as they are stored, where they can

    @property
    def of_checkpoint(self) -> str:
        """The option that says which of a checkpoint's weights are meant, or changes them; empty without one."""
        given = {"--adapter": self.adapters, "--weights-prefix": self.prefix, "--variant": self.variant}
        return next((option for option, value in given.items() if value), "")


@dataclass(frozen=True)
class Variant:
    """An example call of a model that becomes a program: one of several, which differ in values or sizes of inputs."""

    name: str  # an identifier
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: DynamicShapes = None
    fix: tuple[str, ...] = ()  # inputs whose values are fixed at those of the call
    notes: tuple[str, ...] = ()  # for the user: what was left out of the call
    share: float = 1.0  # how often it is called, relative to the others
    optional: bool = False  # whether it is left out where it cannot be exported


def _unknown(values: Mapping[str, torch.Tensor]) -> Variant | None:
    return None


def _unchanged(source: Source) -> Source:
    return source


@dataclass(frozen=True)
class Source:
    """A model with example arguments and weights, as its user brings it."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: DynamicShapes
    weights: Mapping[str, torch.Tensor]  # by fully qualified name
    notes: tuple[str, ...] = ()  # for the user: what was switched so that it can be exported
    made_up: bool = False  # whether nobody chose the sizes of the example
    example_notes: tuple[str, ...] = ()  # what was left out of the example
    fix: tuple[str, ...] = ()  # inputs whose values are fixed at those of the example
    files: tuple[Path, ...] = ()  # files and folders that it was read from
    soft: bool = False  # whether a dynamic size that the model fixes stays fixed: where the user did not name it
    program: str = "main"  # the name of the program that the example makes
    share: float = 1.0  # how often that is called, relative to the variants
    variants: tuple[Variant, ...] = ()  # other calls, each a program of its own
    tokenizer: tuple[Path, ...] = ()  # files of a checkpoint that turn texts into ids
    decoding: Decoding = Decoding()  # how a decoder's step continues texts
    adapters: tuple[str, ...] = ()  # the names of those that rows choose from
    library: Callable[[], nn.Module] | None = None  # the model as its own library loads it, weights and all
    example_for: Callable[[Mapping[str, torch.Tensor]], Variant | None] = _unknown  # a call with these values of inputs
    quantized: Callable[[Source], Source] = _unchanged  # its model, which has plain weights, with quantized ones
    key: str = ""  # of what it was read from, see ir.sources.kept; empty: unknown
    kept: Graph | None = None  # its graph, where that is known from an earlier run; then there is no model
    kept_example: tuple[Any, ...] = ()  # the tensors of the example, where there is no model

    @property
    def as_stored(self) -> Source:
        """The source with a model that holds its weights in the form that is wanted of quantized ones.

        A decoder's step is tried in float32 first, with a weight of its own for each layer.
        """
        return self.quantized(replace(self, quantized=_unchanged))

    @property
    def calls(self) -> tuple[Variant, ...]:
        """The call of each program; the example's is the first."""
        terms = self.dynamic_shapes, self.fix, self.example_notes, self.share
        first = Variant(self.program, self.args, self.kwargs, *terms)
        return (first, *self.variants)

    def example(self, signature: Signature) -> tuple[Any, ...]:
        """The tensors of the example, in the order of the inputs of a graph with this signature."""
        return self.kept_example if self.kept is not None else tuple(signature.bind(self.args, self.kwargs))

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Those of the model and those of its calls, each once."""
        return tuple(dict.fromkeys((*self.notes, *(note for call in self.calls for note in call.notes))))


def opened(path: Path, reading: Reading, *adapters: Adapter) -> Checkpoint:
    """The checkpoint that is meant, with `adapters` and those that the user names.  Raises SourceError."""
    return meant(Checkpoint.open(path, reading.variant), reading, *adapters)


def meant(checkpoint: Checkpoint, reading: Reading, *adapters: Adapter) -> Checkpoint:
    """The weights that are meant of an open checkpoint, with `adapters` and those that the user names.

    Raises SourceError.
    """
    named = [*adapters, *reading.opened_adapters, *map(Adapter.open, reading.adapters)]
    kept = (replace(adapter, kept=reading.keep_adapters) for adapter in named)
    return checkpoint.under(reading.prefix).adapted_by(*kept)


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile returns."""
    return getattr(model, "_orig_mod", model)
