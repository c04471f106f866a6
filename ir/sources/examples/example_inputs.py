"""Example inputs for a transformers model, made from its configuration, with the sizes that may change."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from ir.capture.packed.each_tensor import takes_sizes
from ir.errors import SourceError
from ir.sources.examples.configured import configured_image_size, configured_value
from ir.sources.examples.described_images import (
    DESCRIPTIONS,
    TOKEN_KINDS,
    DescribedImages,
    described_images,
    images_of_any_grid,
    images_of_any_size,
)
from ir.sources.examples.image_tokens import image_token_id, tokens_per_image
from ir.sources.examples.padded_images import PaddedImages, padded_images

BATCH, SEQ, TARGET, SAMPLES, FRAMES = 4, 128, 64, 16000, 200
UNBOUNDED = 2**31
ALONE = "text alone: "
"""How a note on images that no example has begins."""

_ALONE = f"{ALONE}--fix {{}} reads an image of {{}}; several make variants"
_OF_PATCHES = _ALONE.format("image_grid_thw=1x16x16", "16 rows of 16 patches")
_OF_PIXELS = _ALONE.format("image_sizes=336x336", "336 rows of 336 pixels")
_PLACES = "position_ids are an input, as the model's get_rope_index makes them, so that texts may have any length"
_ONE = "one text at a time: config.json names no pad_token_id, by which the model finds the end of a text"


@dataclass(frozen=True)
class ExampleInputs:
    """Arguments by name, and their sizes that may change."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    dynamic: dict[str, dict[int, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __or__(self, other: ExampleInputs) -> ExampleInputs:
        return ExampleInputs(self.inputs | other.inputs, self.dynamic | other.dynamic, self.notes + other.notes)


def make_example(
    model: nn.Module,
    config: Any,
    path: Path,
    padding: bool = True,
    texts: int = BATCH,
    images: Mapping[str, torch.Tensor] | None = None,
) -> ExampleInputs:
    """Inputs for a model's task: token ids, images, audio, and pairs of them.

    Without `padding` all texts have one length, and the model gets no mask.  `images` describes each image for a model
    that takes images apart by their sizes: `image_grid_thw` (`[images, 3]`: frames, rows and columns of patches) or
    `image_sizes` (`[images, 2]`: rows and columns of pixels); they stand in `texts` texts.  Without it there are none.
    Raises SourceError for a model that requires other inputs.
    """
    parameters = inspect.signature(model.forward).parameters
    example = _Maker(model, config, parameters, padding, texts, images or {}).make()
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in example.inputs
    ]
    if missing or not example.inputs:
        asked = ", ".join(missing) or str(getattr(model, "main_input_name", "its inputs"))
        raise SourceError(
            f"{type(model).__name__} takes {asked}, which cannot be made up from {path}/config.json; give a model "
            "file that builds it, with `example_inputs`"
        )
    return example


@dataclass(frozen=True)
class _Maker:
    model: Any
    config: Any
    parameters: Mapping[str, inspect.Parameter]
    padding: bool
    texts: int
    images: Mapping[str, torch.Tensor]

    def make(self) -> ExampleInputs:
        example = ExampleInputs()
        for part in self.parts():
            example |= part
        return example

    def parts(self) -> Iterator[ExampleInputs]:
        """The inputs of the model's task, in the usual order of arguments."""
        main = self.model.main_input_name
        match main:
            case "pixel_values":
                yield self.pixels("batch")
                if "input_ids" in self.parameters:
                    yield self.ids("batch")
            case "input_values":
                yield _floats("input_values", (BATCH, SAMPLES), self.dtype, {0: "batch", 1: "samples"})
            case "input_features":
                yield self.features()
            case _ if "input_ids" in self.parameters:
                yield from self.text()
        if self.config.is_encoder_decoder and "decoder_input_ids" in self.parameters:
            dims = {0: "batch", 1: self.length("target")}
            yield self.tokens("decoder_input_ids", min(TARGET, self.longest), dims)

    def text(self) -> Iterator[ExampleInputs]:
        image = image_token_id(self.config)
        if "pixel_values" not in self.parameters:
            yield self.ids("batch")
        elif hasattr(self.model, "get_text_features"):  # it compares texts with images, as many as there are of each
            yield self.ids("texts")
            yield self.pixels("images")
        elif image is None:
            yield self.ids("batch")
            yield self.pixels("batch")
        elif self.images:
            yield from self.text_around(image, described_images(self.model, self.config, image, self.images))
        elif "image_grid_thw" in self.parameters:
            yield from self.text_with_any(image, images_of_any_grid(self.model, self.config, image), _OF_PATCHES)
        elif takes_sizes(self.model):
            yield from self.text_with_any(image, images_of_any_size(self.model, self.config, image), _OF_PIXELS)
        elif (padded := padded_images(self.model, self.config, self.texts)) is not None:
            yield from self.text_with_padded(image, padded)
        else:
            yield from self.text_with_image(image)

    def text_with_padded(self, token: int, images: PaddedImages) -> Iterator[ExampleInputs]:
        """Texts of one length around images of which some texts have fewer."""
        taken = images.each * max(images.counts)
        words = min(SEQ, self.longest - taken)
        if words < 1:
            yield self.ids("batch")
            yield ExampleInputs(notes=(f"{ALONE}its images take more than the {self.longest} places of the model",))
            return
        ids = self.tokens("input_ids", taken + words, {}).inputs["input_ids"][: self.texts]
        ids[ids == token] = token - 1 if token else 1
        for row, count in zip(ids, images.counts, strict=True):
            row[1 : 1 + images.each * count] = token
        dims = {**({0: "batch"} if self.texts > 1 else {}), 1: self.length("seq")}
        yield ExampleInputs({"input_ids": ids}, {"input_ids": dims})
        for made in self.beside_image(ids, token, words):
            yield replace(made, dynamic=dict.fromkeys(made.inputs, dims))
        yield ExampleInputs(dict(images.inputs), {name: dict(of) for name, of in images.dims.items()})

    def text_with_any(self, token: int, images: DescribedImages | None, alone: str) -> Iterator[ExampleInputs]:
        """Texts around images of any sizes; texts alone, and a note, where there are none."""
        if images is None or self.longest <= max(map(len, images.places)):
            yield self.ids("batch")
            yield ExampleInputs(notes=(alone,))
            return
        for made in self.text_around(token, images):
            pixels = {0: "patches"} if "image_grid_thw" in images.inputs else {0: "images", 2: "height", 3: "width"}
            dims = {"pixel_values": pixels, **{described: {0: "images"} for described in DESCRIPTIONS}}
            given = {name: dims[name] for name in made.inputs if name in dims}
            yield replace(made, dynamic=made.dynamic | given)

    def text_with_image(self, token: int) -> Iterator[ExampleInputs]:
        pixels = self.pixels("images")
        count = tokens_per_image(self.model, pixels.inputs["pixel_values"][:1], token)
        if not count:
            yield self.ids("batch")
            unknown = f"{ALONE}what the model makes of an image cannot be told from its configuration"
            yield ExampleInputs(notes=(_OF_PIXELS if "image_sizes" in self.parameters else unknown,))
            return
        text = self.tokens("input_ids", min(SEQ, self.longest), {0: "batch"})
        image = torch.full((BATCH, count), token)
        words = text.inputs["input_ids"]
        words[words == token] = token - 1 if token else 1
        ids = torch.cat([words[:, :1], image, words[:, 1:]], dim=1)
        yield ExampleInputs({"input_ids": ids}, {"input_ids": {0: "batch", 1: "seq"}})
        yield from self.beside_image(ids, token, min(SEQ, self.longest))
        yield pixels

    def beside_image(self, ids: torch.Tensor, token: int, words: int) -> Iterator[ExampleInputs]:
        """Inputs that a processor makes beside ids: a padding mask, and the places of images among them.

        Each text ends with as many `words`, but for the first.
        """
        mask = torch.ones_like(ids)
        if len(ids) > 1:
            mask[0, -(words // 2) :] = 0  # one text is shorter, behind its image
        made = {"attention_mask": mask, "token_type_ids": (ids == token).long()} if self.padding else {}
        for name in (name for name in made if name in self.parameters):
            yield ExampleInputs({name: made[name]}, {name: {0: "batch", 1: "seq"}})

    def text_around(self, token: int, images: DescribedImages) -> Iterator[ExampleInputs]:
        """Texts of any length with images of these sizes, which stand in them in their order.

        Raises SourceError where the images of a text take more places than the model has.
        """
        among: list[list[torch.Tensor]] = [[] for _ in range(self.texts)]
        for i, places in enumerate(images.places):
            among[i * self.texts // max(self.texts, len(images.places))].append(places)
        taken = max(sum(map(len, row)) for row in among)
        words = min(SEQ, self.longest - taken)
        if words < 1:
            raise SourceError(f"images of {images.said} take more than the {self.longest} places of the model")
        texts = self.tokens("input_ids", taken + words, {}).inputs["input_ids"]
        texts[texts == token] = token - 1 if token else 1
        rows = (torch.cat([t[:1], *row, t[1:]])[: taken + words] for t, row in zip(texts, among, strict=False))
        ids = torch.stack(list(rows))
        dims = {**({0: "batch"} if self.texts > 1 else {}), 1: self.length("seq")}
        yield ExampleInputs({"input_ids": ids}, {"input_ids": dims})
        for made in self.beside_image(ids, token, words):
            yield replace(made, dynamic=dict.fromkeys(made.inputs, dims))
        if images.told_kinds:
            yield ExampleInputs({TOKEN_KINDS: (ids == token).long()}, {TOKEN_KINDS: dims})
        elif images.counts_positions:
            places = torch.arange(ids.shape[1]).repeat(3, len(ids), 1)
            moved = {dim + 1: size for dim, size in dims.items()}
            yield ExampleInputs({"position_ids": places}, {"position_ids": moved}, (_PLACES,))
        yield ExampleInputs(dict(images.inputs))

    # ---- one input each

    def ids(self, batch: str) -> ExampleInputs:
        """Token ids, with a padding mask as tokenizers make it, if texts may be padded."""
        length = min(SEQ, self.longest)
        dims = {0: batch, 1: self.length("seq")}
        if self.one_by_one:
            ids = self.tokens("input_ids", length, {1: dims[1]})
            return ExampleInputs({"input_ids": ids.inputs["input_ids"][:1]}, ids.dynamic, (_ONE,))
        if type(self.model).__name__.endswith("ForMultipleChoice"):
            return self.tokens("input_ids", length, {0: batch, 2: dims[1]}, choices=(2,))
        ids = self.tokens("input_ids", length, dims)
        if "attention_mask" not in self.parameters or not self.padding:
            return ids
        mask = torch.ones_like(ids.inputs["input_ids"])
        mask[0, (length + 1) // 2 :] = 0  # one text is shorter, or the model need not look at the mask
        return ids | ExampleInputs({"attention_mask": mask}, {"attention_mask": dims})

    def tokens(self, name: str, length: int, dims: dict[int, Any], choices: tuple[int, ...] = ()) -> ExampleInputs:
        vocabulary = configured_value(self.config, "vocab_size", "src_vocab_size") or 2
        ids = torch.randint(min(3, vocabulary - 1), vocabulary, (BATCH, *choices, length))
        end = configured_value(self.config, "eos_token_id")
        if isinstance(end, int) and 0 <= end < vocabulary:
            ids[..., -1] = end  # where sentence classifiers and CLIP read
        return ExampleInputs({name: ids}, {name: dims})

    def pixels(self, batch: str) -> ExampleInputs:
        height, width = configured_image_size(self.config)
        channels = configured_value(self.config, "num_channels", "in_channels") or 3
        pixels = _floats("pixel_values", (BATCH, channels, height, width), self.dtype, {0: batch})
        if "pixel_mask" not in self.parameters:
            return pixels
        mask = torch.ones(BATCH, height, width, dtype=torch.int64)
        return pixels | ExampleInputs({"pixel_mask": mask}, {"pixel_mask": {0: batch}})

    def features(self) -> ExampleInputs:
        """A spectrogram: of fixed length for models with positions as Whisper has, else of any length."""
        if hasattr(self.config, "num_mel_bins") and hasattr(self.config, "max_source_positions"):
            shape = (BATCH, self.config.num_mel_bins, 2 * self.config.max_source_positions)
            return _floats("input_features", shape, self.dtype, {0: "batch"})
        bins = (
            configured_value(self.config, "input_feat_per_channel", "feature_size", "input_dim", "num_mel_bins") or 80
        )
        return _floats("input_features", (BATCH, FRAMES, bins), self.dtype, {0: "batch", 1: "frames"})

    # ---- what the configuration says

    @property
    def one_by_one(self) -> bool:
        """Whether the model is a classifier that finds the end of a text by its padding, and has no padding token."""
        classifies = type(self.model).__name__.endswith("ForSequenceClassification")
        return classifies and not _embeds_padding(self.model) and configured_value(self.config, "pad_token_id") is None

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def length(self, name: str) -> Any:
        """A number of tokens that may change, at most the model's number of positions if it is limited."""
        return Dim(name, min=1, max=self.longest) if self.longest < UNBOUNDED else name

    @cached_property
    def longest(self) -> int:
        return most_positions(self.model, self.config)


def most_positions(model: nn.Module, config: Any) -> int:
    """The most tokens that a model has positions for; `UNBOUNDED` where its configuration names no limit."""
    names = ("max_position_embeddings", "max_target_positions", "n_positions", "max_seq_len", "max_sequence_length")
    positions = configured_value(config, *names)
    if not isinstance(positions, int) or positions < 1:
        return UNBOUNDED
    pad = configured_value(config, "pad_token_id") or 0
    shifted = _embeds_padding(model)  # as RoBERTa: positions begin after that of the padding token
    return max(positions - pad - 1, 1) if shifted else positions


def _floats(name: str, shape: tuple[int, ...], dtype: torch.dtype, dims: dict[int, Any]) -> ExampleInputs:
    return ExampleInputs({name: torch.randn(shape, dtype=dtype)}, {name: dims})


def _embeds_padding(model: nn.Module) -> bool:
    tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
    return any(isinstance(m, nn.Embedding) and m.padding_idx is not None for m in tables)
