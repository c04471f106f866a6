"""A Hugging Face checkpoint folder: config.json, with or without weights."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.settings import SETTINGS
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import indexed_dtype
from ir.checkpoint.formats.gguf.file import GgufFile, is_gguf
from ir.checkpoint.formats.gguf.tensors import gguf_tensors
from ir.checkpoint.names import own_tensors
from ir.checkpoint.quantized.planned import hold_planned
from ir.checkpoint.quantized.quantization import quantization_of, reading_settings
from ir.checkpoint.tensors import Stored, Tensorlike
from ir.checkpoint.ties import untie
from ir.checkpoint.transformers import silenced
from ir.errors import SourceError, in_one_line
from ir.sources.examples.described_images import DESCRIPTIONS
from ir.sources.examples.example_inputs import BATCH, ExampleInputs, make_example
from ir.sources.folders import base_folder, model_folder
from ir.sources.gguf_model import gguf_model
from ir.sources.libraries.late_scipy import scipy_later
from ir.sources.meta import parameters_on_meta
from ir.sources.model_class import model_class, transformers_for
from ir.sources.sentences.folder import SentencePart, sentence_parts, with_sentence_parts
from ir.sources.source import Reading, Source, Variant, meant, opened
from ir.sources.switches import switch

_GENERATION = "generation_config.json"
_FAST = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "1_Pooling/config.json"),
)
_SLOW = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "vocab.json", "vocab.txt")


def read_checkpoint_folder(path: Path, reading: Reading) -> Source:
    """Build the model of a checkpoint folder without memory for its weights, with example inputs for its task.

    Raises SourceError that names what is missing, damaged or unknown, and what to do.
    """
    given, parts = path, sentence_parts(path)
    path = _first_folder(path, parts)
    adapters = (Adapter.open(path),) if (path / SETTINGS).is_file() else ()
    path = base_folder(path) if adapters else path
    transformers = transformers_for(path)
    packed = GgufFile.open(path) if is_gguf(path) else None
    folder = path.parent if packed else path
    with scipy_later():
        config, cls, how = gguf_model(packed, transformers) if packed else model_class(path, transformers, reading)
    named = reading.checkpoint or (None if packed else path)
    checkpoint = opened(named, reading, *adapters) if reading.weights and named is not None else None
    caches = "past_key_values" in inspect.signature(cls.forward).parameters
    notes = switch(config, caches=caches and not reading.generate)
    model = _build(path, cls, config, reading.dtype or _dtype(config, checkpoint, reading.variant))
    if (folder / _GENERATION).is_file() and reading.generate:
        model.generation_config = _generation_config(folder, transformers)
    if reading.weights and named is None and packed:
        checkpoint = meant(Checkpoint(path, gguf_tensors(packed, model)), reading)
    make = partial(make_example, model, config, path, reading.padding, 1 if reading.generate else BATCH)
    weights: Mapping[str, torch.Tensor] = {} if checkpoint is None else checkpoint.for_model(model)
    apart = untie(model, weights.tensors) if isinstance(weights, Checkpoint) else ()
    example = make()
    beside = _slow_tokenizer(folder) if reading.generate else ()
    whole = checkpoint is not None and checkpoint.quantization is None and not checkpoint.adapters
    own = whole and reading.checkpoint is None and not reading.prefix and not reading.generate
    source = Source(
        name=given.resolve().name,
        model=model,
        args=(),
        kwargs=example.inputs,
        dynamic_shapes=example.dynamic,
        weights=weights,
        notes=(*how, *notes, *beside, *apart),
        made_up=True,
        example_notes=example.notes,
        tokenizer=tuple(_tokenizer(folder)),
        soft=True,
        library=partial(_as_library, path, cls, model, reading) if own else None,
        example_for=partial(_example_for, model, make),
        quantized=partial(_quantized, path, reading),
    )
    return source if reading.generate else with_sentence_parts(source.as_stored, parts)


def _first_folder(path: Path, parts: Sequence[SentencePart]) -> Path:
    """The folder of the model, which for a sentence transformer is that of its first module."""
    try:
        return model_folder(parts[0].folder if parts else path)
    except SourceError as e:
        if not parts or parts[0].kind == "Transformer":
            raise
        raise SourceError(
            f"{path} is a sentence transformer that begins with {parts[0].kind}, which has no config.json: give a "
            f"model file that makes the model, and the weights with --checkpoint {parts[0].folder}"
        ) from e


def _as_library(path: Path, cls: Any, model: Any, reading: Reading) -> nn.Module:
    """The model as transformers itself loads it, with the configuration of `model`."""
    variant = {"variant": reading.variant} if reading.variant else {}
    file = {"gguf_file": path.name} if is_gguf(path) else {}
    with silenced():
        return cls.from_pretrained(
            path.parent if file else path,
            **file,
            config=model.config,
            dtype=model.dtype,
            local_files_only=True,
            **variant,
        ).eval()


def _quantized(path: Path, reading: Reading, source: Source) -> Source:
    """Have a model hold its weights as its folder stores them, or would; with a note if they are quantized."""
    if isinstance(source.weights, Checkpoint):
        weights = source.weights.held_by(source.model, reading.keep_quantized)
        return replace(source, weights=weights, notes=(*source.notes, *weights.notes))
    quantization = quantization_of(path)
    if quantization is None:
        return source
    with reading_settings(quantization.method):
        held = reading.keep_quantized and hold_planned(source.model, quantization.method, quantization.settings)
    counts = "as it stores them" if held else "in full precision, as they are after dequantizing"
    note = f"the checkpoint is quantized ({quantization.method}); the plan counts its weights {counts}"
    return replace(source, notes=(*source.notes, note))


def _example_for(
    model: nn.Module, make: Callable[..., ExampleInputs], values: Mapping[str, torch.Tensor]
) -> Variant | None:
    """Inputs with images of these sizes; None where anything else is given, or what the model does not take."""
    taken = DESCRIPTIONS.keys() & inspect.signature(model.forward).parameters
    if len(values) != 1 or not (described := [name for name in values if name in taken]):
        return None
    (name,) = described
    example = make(images={name: values[name].reshape(-1, values[name].shape[-1])})
    return Variant("", (), example.inputs, example.dynamic, notes=example.notes)


# ---- what lies beside the weights


def _tokenizer(path: Path) -> Iterator[Path]:
    """The files of a tokenizer, of its chat template, and of the pooling that makes an embedding of a text's states."""
    if (path / "tokenizer.json").is_file():
        yield from (path / name for name in _FAST if (path / name).is_file())


def _slow_tokenizer(path: Path) -> Iterator[str]:
    """A note where the tokenizer is of a kind that Python code runs, which an artifact does not have."""
    if not (path / "tokenizer.json").is_file() and any((path / name).is_file() for name in _SLOW):
        yield (
            "prompts are token ids: the checkpoint's tokenizer has no tokenizer.json; transformers makes one: "
            f'AutoTokenizer.from_pretrained("{path}").save_pretrained("{path}")'
        )


def _generation_config(path: Path, transformers: Any) -> Any:
    try:
        return transformers.GenerationConfig.from_pretrained(path, local_files_only=True)
    except Exception as e:
        raise SourceError(f"{path / _GENERATION} is no configuration of sampling: {in_one_line(e)}") from e


# ---- the model


def _build(path: Path, cls: Any, config: Any, dtype: torch.dtype) -> nn.Module:
    try:
        with parameters_on_meta():
            model = cls._from_config(config, dtype=dtype)
    except Exception as e:
        raise SourceError(f"{cls.__name__} cannot be built from {path}/config.json: {in_one_line(e)}") from e
    _keep_in_float32(model, dtype)
    return model.eval()


def _keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Make those parameters and buffers float32 that transformers loads as float32 whatever the model's dtype."""
    patterns = model._get_dtype_plan(dtype)
    if not patterns:
        return
    kept = re.compile("|".join(pattern.replace("*", ".*") for pattern in patterns))
    wide: dict[torch.Tensor, torch.Tensor] = {}
    for name, tensor in own_tensors(model).items():
        if kept.search(name) and tensor.is_floating_point():
            owner, _, attribute = name.rpartition(".")
            float32 = tensor.detach().float()
            is_weight = isinstance(tensor, nn.Parameter)
            wide.setdefault(tensor, nn.Parameter(float32, requires_grad=False) if is_weight else float32)
            setattr(model.get_submodule(owner), attribute, wide[tensor])


def _dtype(config: Any, checkpoint: Checkpoint | None, variant: str) -> torch.dtype:
    """The dtype that the configuration names, unless it is one of codes, as float8; else that of the weights."""
    named = config.dtype
    if isinstance(named, torch.dtype) and named.itemsize > 1:
        return named
    return _stored_dtype(checkpoint, variant)


def _stored_dtype(checkpoint: Checkpoint | None, variant: str) -> torch.dtype:
    """The dtype that transformers takes if the configuration names none.

    It is what the index of shards names, or else that of the first floating-point tensor.  Files come in the order of
    their names, and so do the tensors of one of safetensors.
    """
    if checkpoint is not None and (named := indexed_dtype(checkpoint.path, variant)) is not None:
        return named
    tensors = checkpoint.tensors.items() if checkpoint is not None else ()
    dtypes = (tensor.dtype for _, tensor in sorted(tensors, key=_place))
    return next((dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize > 1), torch.float32)


def _place(named: tuple[str, Tensorlike]) -> tuple[str, str]:
    """The file of a tensor and, in one of safetensors, its name."""
    name, tensor = named
    file = tensor.pieces[0].file if isinstance(tensor, Stored) else Path()
    return str(file), name if file.suffix == ".safetensors" else ""
