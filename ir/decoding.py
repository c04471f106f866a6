"""Decoding: how a decoder continues texts, on its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Decoding:
    """Facts on a decoder for the loop that continues texts.  `page` is 0 for other models."""

    page: int = 0  # tokens a page
    pages: int = 0  # of the pools of layers that attend to the whole text; page 0 belongs to no text
    window: int = 0  # tokens that sliding layers look at; 0 if there are none
    window_pages: int = 0  # of the pools of sliding layers
    max_length: int = 0  # tokens of a text, prompt included
    vocabulary: int = 0  # ids are less
    stop: tuple[int, ...] = ()  # ids that end a text
    pad: int = 0  # the id behind the end of a text that is shorter than others
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what a checkpoint says of sampling
    pools: tuple[str, ...] = ()  # fully qualified names of the pools of layers that attend to the whole text
    window_pools: tuple[str, ...] = ()  # those of sliding layers

    @property
    def tables(self) -> tuple[str, ...]:
        """The inputs of a step that name pages."""
        return ("table",) * bool(self.pools) + ("window_table",) * bool(self.window_pools)
