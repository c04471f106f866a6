"""Decoding: how a decoder continues texts, on its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Together: TypeAlias = Literal["any", "even", "equal", "alone"]
"""The rows that one step may take: any; those with equally many new tokens; those of one length, too; one alone."""


MEDIA = "media_"
"""The beginning of the names of inputs that are images or sounds before a text, in a graph and its manifest."""


@dataclass(frozen=True)
class MediaPlaces:
    """The places of media in a prompt: as many as `count` of its ids are `token`.

    Where models count positions otherwise than texts do, each of their rows of positions is the index of an id and what
    `offsets` have for it: for each place, and then for other ids, by the number of places before them, as in `counts`.

    Where the input `grids` `[images, 3]` says frames, rows and columns of patches of each image, of which `merge` rows
    and columns are a place, `count` is that of the example alone, and positions follow from the grids: the last three
    rows are frame, row and column of a place, from the end of what is before the image on, and an image takes as many
    positions as its longer side has places.  The `indices` rows before these are indices.

    Where there are `divisors`, `grids` names an input `[images, 2]` of rows and columns of pixels instead: an image
    takes as many places as the product of these, each over its divisor and rounded down, and positions are indices.

    Where `each` is not 0, there may be any number of images, of so many places each; `count` is that of the example.
    `padded` then names an input `[texts, images, …]` that has zeros behind the images of texts with fewer; "": images
    of texts follow each other.
    """

    token: int
    count: int
    offsets: tuple[tuple[int, ...], ...] = ()  # of each row; empty: positions are indices
    counts: tuple[int, ...] = ()
    grids: str = ""
    merge: int = 0
    indices: int = 0
    each: int = 0
    divisors: tuple[int, ...] = ()
    padded: str = ""


@dataclass(frozen=True)
class Decoding:
    """Facts on a decoder for the loop that continues texts.  `page` is 0 for other models."""

    page: int = 0  # tokens a page
    pages: int = 0  # of the pools of layers that attend to the whole text; page 0 belongs to no text
    window: int = 0  # tokens that sliding layers look at; 0 if there are none
    window_pages: int = 0  # of the pools of sliding layers
    slots: int = 0  # of the pools that have one state a text; slot 0 belongs to no text
    max_length: int = 0  # tokens of a text, prompt included
    vocabulary: int = 0  # ids are less
    stop: tuple[int, ...] = ()  # ids that end a text
    pad: int = 0  # the id behind the end of a text that is shorter than others
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what a checkpoint says of sampling
    together: Together = "any"
    chunk: int = 0  # new tokens of a text in one step at most; 0: any number
    cached: bool = True  # False: each step computes the whole text
    source: int = 0  # states of an encoder that a text reads at most; 0 for a decoder without one
    source_pages: int = 0  # of the pools that hold them
    begin: tuple[int, ...] = ()  # ids with which a text of such a decoder begins
    most_texts: int = 0  # the cut says for how many texts the pools have room, at most so many; 0: it is settled
    media: Mapping[str, MediaPlaces] = field(default_factory=dict)  # by the name of a program for prompts with media
    pools: tuple[str, ...] = ()  # fully qualified names of the pools of layers that attend to the whole text
    window_pools: tuple[str, ...] = ()  # those of sliding layers
    slot_pools: tuple[str, ...] = ()  # those that have one state a text
    source_pools: tuple[str, ...] = ()  # those of what layers know of a source

    @property
    def pools_by_size(self) -> Mapping[str, tuple[str, ...]]:
        """The names of pools by that of the field with their first size, which is bound where they are loaded."""
        return {
            "pages": self.pools,
            "window_pages": self.window_pools,
            "slots": self.slot_pools,
            "source_pages": self.source_pools,
        }

    @property
    def tables(self) -> tuple[str, ...]:
        """The inputs of a step that name pages or slots."""
        named = {"table": self.pools, "window_table": self.window_pools, "slots": self.slot_pools}
        named["source_table"] = self.source_pools
        return tuple(name for name, pools in named.items() if pools)
