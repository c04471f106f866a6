"""Pipelines of diffusers: model_index.json names models, whose calls become the programs of one artifact."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.layouts import has_variant
from ir.errors import SourceError
from ir.sources.checkpoint_folder import read_checkpoint_folder
from ir.sources.folders import CONFIG
from ir.sources.libraries.diffusers_calls import CALLS, MASKING, METHODS, TEXT_ENCODERS, LibraryCall
from ir.sources.libraries.diffusers_folder import diffusers_folder
from ir.sources.libraries.diffusers_lora import pipeline_adapters
from ir.sources.libraries.known_folder import settings_of
from ir.sources.source import Reading, Source, Variant

INDEX = "model_index.json"
_STEPS = 30.0  # in which a schedule calls the model that denoises, for each call of the others


@dataclass(frozen=True)
class PipelineCall:
    """A call of a model of a pipeline: which method of which model, and how often one image takes it."""

    model: str
    method: str
    call: LibraryCall
    share: float = 1.0

    @property
    def name(self) -> str:
        """The name of the program, and of the argument that has the inputs."""
        return self.model if self.method == "forward" else f"{self.model}_{self.method}"


class PipelineModels(nn.Module):
    """The models of a pipeline.  An argument names one and its method, and has its inputs: `vae_decode={"z": z}`."""

    def __init__(self, models: Mapping[str, nn.Module], calls: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        for name, model in models.items():
            self.add_module(name, model)
        self._calls = dict(calls)  # the name of a model, and of its method, by those of arguments

    @classmethod
    def of(cls, models: Mapping[str, nn.Module], calls: Mapping[str, tuple[str, str]]) -> PipelineModels:
        """The models with a forward whose arguments are those of `calls`."""
        return type(cls.__name__, (cls,), {"forward": _with_arguments(calls)})(models, calls).eval()

    def called(self, given: Mapping[str, Any]) -> Any:
        """The result of the one argument that is not None."""
        [(name, inputs)] = ((name, inputs) for name, inputs in given.items() if inputs is not None)
        model, method = self._calls[name]
        return (getattr(self, model) if method == "forward" else getattr(getattr(self, model), method))(**inputs)


def _with_arguments(names: Mapping[str, Any]) -> Callable[..., Any]:
    """A forward with these arguments, which are keywords and may be left out."""

    def forward(self: PipelineModels, **given: Any) -> Any:
        return self.called(given)

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = (inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names)
    forward.__signature__ = inspect.Signature([itself, *arguments])  # type: ignore[attr-defined]
    return forward


@dataclass(frozen=True)
class PipelineFolder:
    """A folder of a pipeline, with the library and the class of each of its parts by name."""

    path: Path
    parts: Mapping[str, tuple[str, str]]
    name: str = ""  # of the pipeline's class

    def read(self, reading: Reading) -> Source:
        """The source, in which the models are parts of one.  Raises SourceError where one of them cannot be read."""
        self._check(reading)
        adapters = [pipeline_adapters(folder, self.parts) for folder in reading.adapters]
        sources, left_out = dict[str, Source](), list[str]()
        for name in (name for name in self.parts if (self.path / name / CONFIG).is_file()):
            own = tuple(of[name] for of in adapters if name in of)
            try:
                variant = reading.variant if has_variant(self.path / name, reading.variant) else ""  # as the library
                given = replace(reading, adapters=(), opened_adapters=own, variant=variant)
                sources[name] = self._part(name, given)
            except SourceError as e:
                if self._is_known(name) and not self._is_controlled(name):
                    raise
                left_out.append(f"{name} is left out, and the pipeline itself runs it: {e}")
        if lost := sorted({name for of in adapters for name in of} - sources.keys()):
            why = "; ".join(left_out) or f"{self.path} has no {CONFIG} of it"
            raise SourceError(f"there is LoRA for {lost[0]}, which no stage would run: {why}")
        calls = sorted((call for name in sources for call in self._calls(name, sources[name])), key=_rarity)
        if not calls:
            why = "; ".join(left_out) or "none is here"
            raise SourceError(f"{self.path} is a pipeline of diffusers none of whose models is read: {why}")
        return self._source(sources, calls, tuple(left_out))

    def _is_known(self, name: str) -> bool:
        """Whether it is known how pipelines call a model."""
        return self.parts[name][1] in (*CALLS, *TEXT_ENCODERS)

    def _is_controlled(self, name: str) -> bool:
        """Whether a model takes what a ControlNet gives beside its own arguments."""
        return "controlnet" in self.parts and name in ("unet", "transformer")

    def _check(self, reading: Reading) -> None:
        """Raise SourceError for options that are of one model."""
        given = {
            "--generate": reading.generate,
            "--adapter keep": reading.keep_adapters,
            "--weights-prefix": reading.prefix,
            "--checkpoint": reading.checkpoint,
        }
        if asked := next(filter(given.get, given), None):
            raise SourceError(f"{self.path} is a pipeline of diffusers, and {asked} is for one model")
        if reading.variant and not any(has_variant(self.path / name, reading.variant) for name in self.parts):
            raise SourceError(f"no model of the pipeline {self.path} has the variant {reading.variant}: leave it out")

    def _part(self, name: str, reading: Reading) -> Source:
        library, cls = self.parts[name]
        if self._is_controlled(name):
            raise SourceError("what it takes from a ControlNet is not known")
        if cls in CALLS and (known := diffusers_folder(self.path / name)) is not None:
            return known.read(reading)
        if library != "transformers":
            raise SourceError(f"how pipelines call {cls} is not known")
        masked = cls not in TEXT_ENCODERS or self.name in MASKING
        return read_checkpoint_folder(self.path / name, replace(reading, padding=masked))

    def _calls(self, name: str, source: Source) -> Iterator[PipelineCall]:
        cls = self.parts[name][1]
        if cls in METHODS:
            dtype = next(source.model.parameters()).dtype
            for method, call in METHODS[cls](source.model.config, dtype).items():
                yield PipelineCall(name, method, call)
            return
        inputs, shapes = {**source.kwargs, **TEXT_ENCODERS.get(cls, {})}, source.dynamic_shapes
        if (step := inputs.get("timestep")) is not None and not step.is_floating_point():
            inputs["timestep"] = step.float()  # some schedules have steps between whole numbers
        share = _STEPS if self.parts[name][0] == "diffusers" else 1.0
        yield PipelineCall(name, "forward", LibraryCall(inputs, shapes), share)

    def _source(self, sources: Mapping[str, Source], calls: list[PipelineCall], left_out: tuple[str, ...]) -> Source:
        methods = {call.name: (call.model, call.method) for call in calls}
        models = {name: source.model for name, source in sources.items()}
        stored = [source.weights for source in sources.values()]
        first, *others = (
            Variant(c.name, (), {c.name: c.call.inputs}, {c.name: c.call.dynamic}, share=c.share) for c in calls
        )
        named = ((name, note) for name, source in sources.items() for note in source.notes)
        return Source(
            name=self.path.resolve().name,
            model=PipelineModels.of(models, methods),
            args=(),
            kwargs=first.kwargs,
            dynamic_shapes=first.dynamic_shapes,
            weights=self._weights(sources) if all(isinstance(w, Checkpoint) for w in stored) else {},
            notes=(*left_out, *(f"{name}: {note}" for name, note in named)),
            made_up=True,
            soft=True,
            program=first.name,
            share=first.share,
            variants=tuple(others),
            library=partial(_loaded, sources, methods) if all(s.library for s in sources.values()) else None,
        )

    def _weights(self, sources: Mapping[str, Source]) -> Checkpoint:
        """The tensors of all models, with the names of these before theirs."""
        tensors = {
            f"{name}.{key}": tensor
            for name, source in sources.items()
            if isinstance(source.weights, Checkpoint)
            for key, tensor in source.weights.tensors.items()
        }
        return Checkpoint(self.path, tensors)


def diffusers_pipeline(path: Path) -> PipelineFolder | None:
    """The folder, if it is one of a pipeline of diffusers."""
    if not (path / INDEX).is_file():
        return None
    settings = settings_of(path / INDEX)
    parts = {name: tuple(part) for name, part in settings.items() if isinstance(part, list) and len(part) == 2}
    named = {name: part for name, part in parts.items() if all(isinstance(p, str) for p in part)}
    return PipelineFolder(path, named, str(settings.get("_class_name", "")))


def _rarity(call: PipelineCall) -> float:
    return -call.share


def _loaded(sources: Mapping[str, Source], methods: Mapping[str, tuple[str, str]]) -> nn.Module:
    """The models as their libraries load them."""
    loaded = {name: source.library() for name, source in sources.items() if source.library is not None}
    return PipelineModels.of(loaded, methods)
