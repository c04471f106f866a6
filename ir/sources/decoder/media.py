"""Images and sounds before a text: what a model's forward takes beside ids, in the first step of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import pad

from ir.capture.packed.padding import MASK, PIXELS, leave_out_padding
from ir.capture.packed.towers import takes_grids
from ir.decoding import MediaPlaces
from ir.errors import SourceError
from ir.objects.signature import forward_parameters
from ir.sources.decoder.agreement import Tensors, step_logits
from ir.sources.decoder.places import (
    GRIDS,
    follows_from_grids,
    places_of,
    positions_of_prompt,
    prompt_of_grids,
    unchanged,
)
from ir.sources.examples.described_images import pixels_of_place
from ir.sources.examples.example_inputs import ALONE, make_example, most_positions
from ir.sources.examples.image_tokens import image_token_id, places_of_any_number
from ir.sources.examples.padded_images import any_sides
from ir.sources.source import Source

_SIZES = "image_sizes"
TEXT = ("input_ids", "attention_mask", "position_ids")  # inputs of a text alone
_FEW = 64  # numbers of an input that are taken for a description, such as a grid, and not for data


@dataclass(frozen=True)
class Media:
    """The prompt of one text with the inputs that stand before it."""

    ids: Tensor  # int64[1, seq], with a token in each place of an image
    inputs: Mapping[str, Tensor]  # of that text, by name
    place: int | None = None  # the id in whose places an image stands; None: not known
    name: str = "media"  # of the program that reads them
    positions: Tensor | None = None  # int64[rows, 1, seq] or int64[1, seq]; None where they are indices
    merge: int = 0  # rows and columns of patches of a place, where grids of images may be any; 0: no input is such
    each: int = 0  # places of an image, of which there may be any number; 0: as many as here
    divisors: tuple[int, ...] = ()  # rows and columns of pixels of a place, where sizes of images may be any
    padded: bool = False  # whether images are in rows of texts, as those that are zeros are none
    any_sides: bool = False  # whether rows and columns of pixels may be any, of images that take so many places each

    @property
    def places(self) -> MediaPlaces | None:
        """The places of images in the prompt."""
        if self.place is None:
            return None
        if self.divisors:
            return MediaPlaces(self.place, int((self.ids == self.place).sum()), grids=_SIZES, divisors=self.divisors)
        if self.each:
            padded = PIXELS if self.padded else ""
            return MediaPlaces(self.place, int((self.ids == self.place).sum()), each=self.each, padded=padded)
        if self.merge and self.positions is not None:
            indices = self.positions.shape[0] - 3
            return MediaPlaces(self.place, int((self.ids == self.place).sum()), (), (), GRIDS, self.merge, indices)
        return places_of(self.place, self.ids, self.positions)

    @property
    def step_inputs(self) -> dict[str, Tensor]:
        """The inputs of the first step, its positions included."""
        return {**self.inputs, **({} if self.positions is None else {"position_ids": self.positions})}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The inputs that are a few whole numbers, such as the grid of an image: their values are fixed."""
        few = (n for n, t in self.inputs.items() if not t.is_floating_point() and t.numel() <= _FEW)
        any_size = {GRIDS} if self.merge else {_SIZES} if self.divisors else {MASK} if self.padded else set[str]()
        return tuple(n for n in few if not self.is_of_tokens(n) and n not in any_size)

    @property
    def packed(self) -> tuple[str, ...]:
        """The inputs with a row for each image, or for each patch, where images may be any."""
        is_any = self.merge or self.each or self.divisors
        return tuple(n for n in self.inputs if is_any and not self.is_of_tokens(n))

    def is_of_tokens(self, name: str) -> bool:
        """Whether an input has a value for each token, `[1, seq]`."""
        return self.inputs[name].shape == self.ids.shape

    def longer(self, model: Any, before: int, behind: int) -> Media:
        """The media in a prompt with so many more tokens around it, copies of the last; inputs have zeros for them.

        Raises SourceError where the model does not say their positions.
        """
        last = self.ids[:, -1:]
        ids = torch.cat([last.expand(1, before), self.ids, last.expand(1, behind)], 1)
        padded = {n: pad(t, (before, behind)) if self.is_of_tokens(n) else t for n, t in self.inputs.items()}
        return replace(self, ids=ids, inputs=padded, positions=positions_of_prompt(model, ids, padded))


def media_of(source: Source) -> tuple[tuple[Media, ...], str]:
    """The media of the source's calls, or of one that is made up; or why there are none.  Empty for a text model."""
    found, alone = list[Media](), ""
    for call in source.calls:
        given = {p.name: v for p, v in zip(forward_parameters(source.model), call.args, strict=False)} | {**call.kwargs}
        try:
            if not given:
                example = make_example(source.model, source.model.config, Path(), padding=False)
                given = dict(example.inputs)
                alone = next((n.removeprefix(ALONE) for n in example.notes if n.startswith(ALONE)), "")
            media = _of_call(source.model, given, "media" if not source.variants else f"media_{call.name}")
            if media is not None and not source.variants and not {GRIDS, _SIZES} & set(source.fix):
                for made_any in (_of_any_grids, _of_any_sizes, _of_padded, _of_any_number):
                    media = made_any(source.model, media)
        except SourceError as e:
            return (), str(e)
        found += [media] if media is not None else []
    return tuple(found), "" if found else alone


def _of_call(model: Any, given: Mapping[str, Any], name: str) -> Media | None:
    """The media of the first text of a call.  Raises SourceError where it is not known what belongs to it."""
    ids = given.get("input_ids")
    beside = {n: t for n, t in given.items() if n not in TEXT and isinstance(t, Tensor)}
    if not isinstance(ids, Tensor) or not beside:
        return None
    rows = ids.shape[0]
    if any(t.shape[0] % rows for t in beside.values()):
        raise SourceError(
            f"its example has {rows} texts, and inputs that are not as many for each; give one of one text"
        )
    first = {n: t[: t.shape[0] // rows] for n, t in beside.items()}
    place = image_token_id(model.config)
    kinds = "mm_token_type_ids"  # which models count positions by, where they are not told them
    if place is not None and kinds not in first and any(p.name == kinds for p in forward_parameters(model)):
        first[kinds] = (ids[:1] == place).long()
    media = Media(ids[:1], first, place, name, positions_of_prompt(model, ids[:1], first))
    _ = media.places, [media.longer(model, *more).places for more in ((1, 0), (0, 1))]
    return media


def _of_any_grids(model: Any, media: Media) -> Media:
    """The media with grids that may be any, where positions follow from them, for these and for other images."""
    merge = getattr(getattr(model.config, "vision_config", None), "spatial_merge_size", 0)
    if media.place is None or media.positions is None or GRIDS not in media.inputs or not takes_grids(model):
        return media
    ids, grid = prompt_of_grids(media.place, merge)
    kinds = {"mm_token_type_ids": (ids == media.place).long(), GRIDS: grid}
    prompts = (media.ids, media.inputs, media.positions), (ids, kinds, positions_of_prompt(model, ids, kinds))
    found = replace(media, merge=merge)
    for ids, inputs, positions in prompts:
        places = found.places
        if places is None or positions is None or not follows_from_grids(places, ids, inputs[GRIDS], positions):
            return media
    return found


def _of_any_sizes(model: Any, media: Media) -> Media:
    """The media with sizes of images that may be any, where a tower is told these, and nothing but pixels beside."""
    beside = {name for name in media.inputs if not media.is_of_tokens(name)}
    unit = pixels_of_place(model, model.config)
    if media.place is None or media.positions is not None or beside != {PIXELS, _SIZES} or not unit:
        return media
    places = int((media.inputs[_SIZES] // unit).prod(1).sum())
    return replace(media, divisors=(unit, unit)) if places == int((media.ids == media.place).sum()) else media


def _of_padded(model: Any, media: Media) -> Media:
    """The media with any number of images, where the model leaves out those that are zeros."""
    beside = {name for name in media.inputs if not media.is_of_tokens(name)}
    if media.place is None or media.positions is not None or beside != {PIXELS, MASK} or not leave_out_padding(model):
        return media
    count, images = int((media.ids == media.place).sum()), int((media.inputs[PIXELS] != 0).flatten(2).any(-1).sum())
    if not images or count % images:
        return media
    return replace(media, each=count // images, padded=True, any_sides=any_sides(model, media.inputs[PIXELS]))


def _of_any_number(model: Any, media: Media) -> Media:
    """The media with two images or more, of which there may be any number, where the model's code takes so many.

    Positions are indices then, and nothing but pixels says what the images are.
    """
    beside = [name for name in media.inputs if not media.is_of_tokens(name)]
    if media.place is None or media.positions is not None or beside != [PIXELS]:
        return media
    several = media if len(media.inputs[PIXELS]) > 1 else _twice(media)
    count, pixels = int((several.ids == media.place).sum()), several.inputs[PIXELS]
    if several.ids.shape[1] > most_positions(model, model.config):
        return media
    each = places_of_any_number(model, pixels, media.place)
    if not each or each * len(pixels) != count or positions_of_prompt(model, several.ids, several.inputs) is not None:
        return media
    return replace(several, each=each)


def _twice(media: Media) -> Media:
    """The media with another image, which stands before it."""
    places = (media.ids[0] == media.place).nonzero()
    last = int(places.max()) + 1 if len(places) else 0
    images = {PIXELS: torch.cat([media.inputs[PIXELS].flip(-1), media.inputs[PIXELS]])}
    of_tokens = {n: torch.cat([t[:, :last], t], 1) for n, t in media.inputs.items() if media.is_of_tokens(n)}
    return replace(media, ids=torch.cat([media.ids[:, :last], media.ids], 1), inputs=of_tokens | images)


@dataclass(frozen=True)
class MediaAgreement:
    """A comparison of a step that has media with the model itself, for its first step and the one behind it."""

    step: nn.Module
    tables: Sequence[str]
    pools: Mapping[str, Tensor]  # by fully qualified name, of any number of pages or slots
    page: int
    media: Media

    @torch.no_grad()
    def difference(self, model: Any, weights: Tensors) -> float:
        """The largest difference of logits, relative to the largest logit.  `weights` are those of `model` by name.

        Where positions are not indices, another token before the prompt is tried, too.
        """
        moved = [] if self.media.positions is None else [self.media.longer(model, 1, 0)]
        with unchanged(model):
            return max(self._difference(model, weights, media) for media in (self.media, *moved))

    def _difference(self, model: Any, weights: Tensors, media: Media) -> float:
        first, longer = media.ids, media.longer(model, 0, 1)
        pages = -(-longer.ids.shape[1] // self.page)
        state = {**weights, **{n: pool.new_zeros(1 + pages, *pool.shape[1:]) for n, pool in self.pools.items()}}
        tables = {name: torch.arange(1, 1 + pages)[None] for name in self.tables}
        later = {"window_first": torch.zeros(1, dtype=torch.int64)}
        if longer.positions is not None:
            later["shifts"] = longer.positions.flatten(0, -2)[-1, -1:] - first.shape[1]
        differences: list[float] = []
        for new, whole, beside in ((first, media, media.step_inputs), (first[:, -1:], longer, later)):
            done = whole.ids.shape[1] - new.shape[1]
            counts = torch.tensor([done]), torch.tensor([new.shape[1]])
            got = step_logits(self.step, state, (new, *counts, {**tables, **beside}))[0]
            inputs = {"input_ids": whole.ids, **whole.inputs, "use_cache": False}
            returned: Any = functional_call(model, weights, (), inputs)
            want = returned.logits[0, -1]
            differences.append(float((got - want).abs().max() / want.abs().max()))
        return max(differences)
