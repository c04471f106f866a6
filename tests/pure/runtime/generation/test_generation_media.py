"""Images before a text, over a decoder that notes what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.call.input_type import InputType
from runtime.errors import InputError
from runtime.generation.generator import Generator
from runtime.generation.options import TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.prompts.media import MediaInputs, MediaProgram, TextMedia, media_positions
from runtime.generation.scheduling.pages import TRASH
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation, MediaPlaces
from runtime.manifest.manifest import Tensor as ManifestTensor
from tests.support.patience import PATIENCE

PLACE = 5
TERMS = Generation(page=4, pages=40, max_length=64, vocabulary=97)
PIXELS = ManifestTensor("media_pixels", "float32", (1, 3, 2))
KINDS = ManifestTensor("media_kinds", "int64", (1, "seq"))
TAKES = ("input_ids", "lengths", "counts", "table")


@pytest.fixture
def media() -> Any:
    types = {"pixels": InputType.parse(PIXELS, ()), "kinds": InputType.parse(KINDS, ["seq"])}
    program = MediaProgram(types, MediaPlaces(PLACE, 2))
    return MediaInputs((program,), (*TAKES, "media_pixels", "media_kinds"))


GRID = InputType.parse(ManifestTensor("media_position_ids", "int64", (2, 1, "seq")), ["seq"])
SQUARE = MediaPlaces(PLACE, 4, ((0, -1, -1, -2, 0, -2), (0, 0, -2, -2, 0, -2)), (0, 4))  # rows and columns of 2 x 2
TALL = MediaPlaces(PLACE, 2, ((0, 0, 0, 0), (0, -1, 0, 0)), (0, 2))


@pytest.fixture
def grids() -> Any:
    """Two programs, for images of 2 x 2 and of 2 x 1 places."""
    made = (
        MediaProgram(
            {"pixels": InputType.parse(ManifestTensor("media_pixels", "float32", (size, 3)), ())},
            places,
            {"grid": torch.tensor([[size // columns, columns]])},
            GRID,
        )
        for size, columns, places in ((4, 2, SQUARE), (2, 1, TALL))
    )
    return MediaInputs(tuple(made))


def test_positions_follow_the_places_of_an_image() -> None:
    found = media_positions(SQUARE, [9, 9, PLACE, PLACE, PLACE, PLACE, 9, 9])
    assert found.tolist() == [[[0, 1, 2, 2, 3, 3, 4, 5]], [[0, 1, 2, 3, 2, 3, 4, 5]]]
    with pytest.raises(InputError, match="behind 1 of the 4 tokens 5 stands another; media have theirs in a row"):
        media_positions(SQUARE, [9, PLACE, 9, PLACE, PLACE, PLACE])


def test_numbers_choose_the_program_of_a_text_and_its_positions_go_on_behind_it(grids: Any) -> None:
    ids = [9, PLACE, PLACE, PLACE, PLACE, 9]
    [found] = grids.of_rows({"pixels": torch.zeros(4, 3), "grid": torch.tensor([[2, 2]])}, [ids], None)
    assert found.given["media_position_ids"].tolist() == [[[0, 1, 1, 2, 2, 3]], [[0, 1, 2, 1, 2, 3]]]
    assert found.given["media.grid"].tolist() == [[2, 2]]
    [other] = grids.of_rows({"pixels": torch.zeros(2, 3), "grid": torch.tensor([[2, 1]])}, [[PLACE, PLACE]], None)
    assert (found.shift, other.shift) == (-2, 0)
    says = r"a prompt has grid \[\[4, 1\]\], and .*; compile with --fix: each becomes a program"
    with pytest.raises(InputError, match=says):
        grids.of_rows({"pixels": torch.zeros(4, 3), "grid": torch.tensor([[4, 1]])}, [ids], None)


def given(rows: int = 1, seq: int = 4) -> dict[str, Tensor]:
    return {"pixels": torch.arange(rows * 6.0).reshape(rows, 3, 2), "kinds": torch.ones(rows, seq, dtype=torch.int64)}


def test_each_text_has_its_part_without_padding(media: Any) -> None:
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    first, second = media.of_rows(given(2), [[PLACE, PLACE, 9], [9, PLACE, PLACE, 9]], mask)
    assert torch.equal(second.given["media_pixels"], given(2)["pixels"][1:])
    assert [one.given["media_kinds"].shape for one in (first, second)] == [(1, 3), (1, 4)]
    assert second.given["media_kinds"].tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("change", "ids", "says"),
    [
        ({"pixels": torch.zeros(1, 3, 9)}, [9, PLACE, PLACE, 9], "`pixels`: expected float32.1, 3, 2., got"),
        ({}, [9, PLACE, PLACE], "kinds is of 4 tokens, and the prompt has 3"),
        ({}, [9, PLACE, 9, 9], "a prompt has 1 tokens 5, in whose places media stand; this artifact takes 2"),
    ],
)
def test_media_that_do_not_fit_the_prompt(media: Any, change: dict[str, Tensor], ids: list[int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        media.of_rows({**given(), **change}, [ids], None)


def test_media_that_an_artifact_does_not_take(media: Any) -> None:
    assert media.named({**given(), "max_new_tokens": 3}).keys() == {"pixels", "kinds"}
    with pytest.raises(InputError, match="this artifact takes no sound: beside ids it takes pixels, kinds"):
        media.named({"sound": torch.zeros(1)})
    with pytest.raises(InputError, match="takes no sound: it continues texts alone"):
        MediaInputs().named({"sound": torch.zeros(1)})
    with pytest.raises(InputError, match="pixels goes with kinds"):
        media.named({"pixels": torch.zeros(1)})


@pytest.mark.parametrize("pads", [False, True])
def test_a_prompt_with_media_is_a_batch_of_its_own_and_shares_no_pages(media: Any, pads: bool) -> None:
    seen: list[Mapping[str, Tensor]] = []

    def submit(batch: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        seen.append(batch)
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs(batch["input_ids"][:, -1] + 1, torch.zeros(len(batch["lengths"]))))
        return done

    made = Generator(TERMS, TAKES, GeneratingStages(submit, 1, pads), media=media.takes)
    made._scheduler.chunk = 4
    ids = [9, PLACE, PLACE, 9, 9, 9, 9, 9]
    [image] = media.of_rows(given(seq=8), [ids], None)
    alike: list[TextMedia | None] = [image, image, None]
    texts = [made.start(ids, TextOptions(2), media=its) for its in alike]
    assert [text.result(timeout=PATIENCE) for text in texts] == [[10, 11]] * 3
    made.close()
    first = [batch for batch in seen if "media_pixels" in batch]
    assert [batch["input_ids"].shape for batch in first] == [(1, 8)] * 2
    assert [batch["table"][0, -1] for batch in first] == [TRASH] * 2  # more keys than tokens
    plain = [batch for batch in seen if "media_pixels" not in batch and not int(batch["lengths"].min())]
    assert [batch["input_ids"].shape for batch in plain] == [(1, 128 if pads else 4)]  # nothing of what images made


def test_a_text_that_gave_its_pages_up_is_computed_again_with_its_media_before_the_prompt_alone(
    media: Any,
) -> None:
    """What it wrote follows in chunks, ids in whose places media stand among it."""
    seen: list[int] = []
    both = Event()  # have begun

    def submit(batch: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        assert both.wait(PATIENCE)
        seen.extend([batch["input_ids"].shape[1]] if "media_pixels" in batch else [])
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs((batch["lengths"] + batch["counts"]) % 7, torch.zeros(len(batch["lengths"]))))
        return done

    made = Generator(replace(TERMS, pages=9), TAKES, GeneratingStages(submit, 1), media=media.takes)
    made._scheduler.chunk = 4
    ids = [9, PLACE, PLACE, 9, 9, 9, 9, 9]
    [image] = media.of_rows(given(seq=8), [ids], None)
    texts = [made.start(ids, TextOptions(16), media=image) for _ in range(2)]
    both.set()
    wanted = [at % 7 for at in range(8, 24)]
    assert PLACE in wanted
    assert [text.result(timeout=PATIENCE) for text in texts] == [wanted] * 2
    made.close()
    assert len(seen) > 2
    assert set(seen) == {8}


@pytest.mark.parametrize("error", [InputError, MemoryError])
def test_a_batch_that_no_program_takes_costs_its_own_texts_alone(error: type[Exception]) -> None:
    """Or one for which there is no memory."""

    def submit(batch: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        if int(batch["input_ids"].max()) > 50:
            raise error("no program takes it")
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs(batch["input_ids"][:, -1], torch.zeros(len(batch["lengths"]))))
        return done

    made = Generator(TERMS, TAKES, GeneratingStages(submit, 1))
    texts = [made.start([token], TextOptions(3)) for token in (60, 7)]
    with pytest.raises(error, match="no program takes it"):
        texts[0].result(timeout=PATIENCE)
    assert made.start([8], TextOptions(3)).result(timeout=PATIENCE) == [8, 8, 8]
    made.close()
