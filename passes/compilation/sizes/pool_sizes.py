"""The sizes of a decoder's pools: the pages of a text, and of so many texts."""

from __future__ import annotations

from dataclasses import replace

from ir.decoding import Decoding

STEP_TOKENS = 512  # tokens of a prompt that one step takes at most, of which sliding layers keep the pages


def decoding_for(decoding: Decoding, texts: int, tokens: int | None = None) -> Decoding:
    """The terms of a decoder with room for so many texts, or tokens; page 0 is added.

    Pages of whole texts are counted also where all layers slide: they bound the texts in progress.
    """
    page = decoding.page
    pages = -(-tokens // page) if tokens is not None else texts * pages_of(decoding)
    window = texts * window_pages_of(decoding)
    return replace(
        decoding,
        pages=1 + pages,
        window_pages=1 + window if decoding.window_pools else 0,
        slots=1 + texts if decoding.slot_pools else 0,
        source_pages=1 + texts * source_pages_of(decoding) if decoding.source_pools else 0,
    )


def pages_of(decoding: Decoding) -> int:
    """The pages of a text of the greatest length."""
    return -(-decoding.max_length // decoding.page)


def window_pages_of(decoding: Decoding) -> int:
    """The pages of sliding layers that a text has at once: of the window, and of the tokens of a step."""
    return min(pages_of(decoding), -(-decoding.window // decoding.page) + -(-STEP_TOKENS // decoding.page) + 1)


def source_pages_of(decoding: Decoding) -> int:
    """The pages of the longest source."""
    return -(-decoding.source // decoding.page)
