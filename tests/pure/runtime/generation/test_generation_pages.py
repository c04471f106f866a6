"""Pages of the pools: who owns them, how many there are, and the widths of sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runtime.generation.scheduling.pages import Pages, prefixes_of
from runtime.generation.scheduling.widths import SourceWidths
from runtime.manifest.manifest import CallSignature, Generation, Manifest, ProgramEntry, Symbol
from runtime.manifest.manifest import Tensor as ManifestTensor
from tests.support.artifacts.by_hand import chain


def test_room_for_other_tokens_scales_all_pools() -> None:
    """Planned are 10 texts of 32 tokens; each has 4 pages of sliding layers, and a slot."""
    planned = Generation(page=8, pages=41, window=9, window_pages=41, slots=11, max_length=32)
    assert planned.with_room_for(0) is planned
    assert planned.with_room_for(64).sizes == {"pages": 9, "window_pages": 9, "slots": 3, "source_pages": 0}
    assert planned.with_room_for(20).sizes == {"pages": 4, "window_pages": 5, "slots": 2, "source_pages": 0}


def test_texts_may_lie_anywhere_in_pools_of_another_size(tmp_path: Path) -> None:
    found = Manifest.read(chain(tmp_path))
    ranges = {"input_ids": (0, 63), "table": (0, 40), "slots": (-11, 10)}
    programs = tuple(replace(program, index_ranges=ranges) for program in found.programs)
    planned = replace(found, programs=programs, generation=Generation(page=8, pages=41, slots=11, max_length=32))
    for tokens, table, slots in [(640, (0, 80), (-21, 20)), (20, (0, 3), (-2, 1)), (0, (0, 40), (-11, 10))]:
        (program,) = planned.with_room_for(tokens).programs
        assert program.index_ranges == {"input_ids": (0, 63), "table": table, "slots": slots}


def test_pages_that_nobody_owns_are_kept_until_room_is_needed() -> None:
    pages = Pages(4)
    first, second = prefixes_of(range(8), 4)
    mine = [pages.take(), pages.take()]
    for page, prefix in zip(mine, (first, second), strict=True):
        pages.name(page, prefix)
    pages.give(mine)
    assert pages.free == 3
    assert pages.share([first, second, b"other"]) == mine
    assert pages.free == 1
    pages.give(mine)
    assert [pages.take() for _ in range(3)] == [3, *mine]  # the empty one first, then the longest unused
    assert pages.share([first]) == []
    with pytest.raises(IndexError, match="no page is free"):
        pages.take()


def test_a_page_is_free_when_its_last_owner_gives_it_up() -> None:
    pages = Pages(3)
    page = pages.take()
    pages.name(page, b"prefix")
    assert pages.share([b"prefix"]) == [page]
    pages.give([page])
    assert pages.free == 1
    pages.give([page])
    assert pages.free == 2


def test_a_source_is_padded_to_a_width_that_the_encoder_takes() -> None:
    symbols = {"batch": Symbol(1, None, 2), "width": Symbol(2, None, 6)}
    call = CallSignature((), {}, {})
    tensor = ManifestTensor("source", "int64", ("batch", "width"))
    program = ProgramEntry("start", (tensor,), (), symbols, ("(width % 5) != 0",), call, ())
    widths = SourceWidths.of(program, 20)
    found = [widths.padded({"source": torch.ones(1, n)})["source"].shape[1] for n in (1, 2, 4, 5, 10)]
    assert found == [2, 2, 4, 6, 11]
