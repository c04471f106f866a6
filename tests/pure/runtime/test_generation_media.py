"""Images before a text, over a decoder that notes what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.call.input_type import InputType
from runtime.errors import InputError
from runtime.generation.generator import Generator
from runtime.generation.media import MediaInputs, TextMedia
from runtime.generation.options import TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.pages import TRASH
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation
from runtime.manifest.manifest import Tensor as ManifestTensor

PLACE = 5
TERMS = Generation(page=4, pages=40, max_length=64, vocabulary=97)
PIXELS = ManifestTensor("media_pixels", "float32", (1, 3, 2))
KINDS = ManifestTensor("media_kinds", "int64", (1, "seq"))
TAKES = ("input_ids", "lengths", "counts", "table")


@pytest.fixture
def media() -> MediaInputs:
    types = {"pixels": InputType.parse(PIXELS, ()), "kinds": InputType.parse(KINDS, ["seq"])}
    return MediaInputs(types, (*TAKES, "media_pixels", "media_kinds"), ((PLACE, 2),))


def given(rows: int = 1, seq: int = 4) -> dict[str, Tensor]:
    return {"pixels": torch.arange(rows * 6.0).reshape(rows, 3, 2), "kinds": torch.ones(rows, seq, dtype=torch.int64)}


def test_each_text_has_its_part_without_padding(media: MediaInputs) -> None:
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    first, second = media.of_rows(given(2), [[PLACE, PLACE, 9], [9, PLACE, PLACE, 9]], mask)
    assert torch.equal(second.given["media_pixels"], given(2)["pixels"][1:])
    assert [one.given["media_kinds"].shape for one in (first, second)] == [(1, 3), (1, 4)]
    assert second.inputs(6)["media_kinds"].tolist() == [[1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("change", "ids", "says"),
    [
        ({"pixels": torch.zeros(1, 3, 9)}, [9, PLACE, PLACE, 9], "`pixels`: expected float32.1, 3, 2., got"),
        ({}, [9, PLACE, PLACE], "kinds is of 4 tokens, and the prompt has 3"),
        ({}, [9, PLACE, 9, 9], "a prompt has 1 tokens 5, in whose places media stand; this artifact takes 2"),
    ],
)
def test_media_that_do_not_fit_the_prompt(
    media: MediaInputs, change: dict[str, Tensor], ids: list[int], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        media.of_rows({**given(), **change}, [ids], None)


def test_media_that_an_artifact_does_not_take(media: MediaInputs) -> None:
    assert media.named({**given(), "max_new_tokens": 3}).keys() == {"pixels", "kinds"}
    with pytest.raises(InputError, match="this artifact takes no sound: beside ids it takes pixels, kinds"):
        media.named({"sound": torch.zeros(1)})
    with pytest.raises(InputError, match="takes no sound: it continues texts alone"):
        MediaInputs({}).named({"sound": torch.zeros(1)})
    with pytest.raises(InputError, match="pixels goes with kinds"):
        media.named({"pixels": torch.zeros(1)})


def test_a_prompt_with_media_is_a_batch_of_its_own_and_shares_no_pages(media: MediaInputs) -> None:
    seen: list[Mapping[str, Tensor]] = []

    def submit(batch: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        seen.append(batch)
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs(batch["input_ids"][:, -1] + 1, torch.zeros(len(batch["lengths"]))))
        return done

    made = Generator(TERMS, TAKES, GeneratingStages(submit, 1), media=media.takes)
    made._scheduler.chunk = 4
    ids = [9, PLACE, PLACE, 9, 9, 9, 9, 9]
    [image] = media.of_rows(given(seq=8), [ids], None)
    alike: list[TextMedia | None] = [image, image, None]
    texts = [made.start(ids, TextOptions(2), media=its) for its in alike]
    assert [text.result(timeout=30) for text in texts] == [[10, 11]] * 3
    made.close()
    first = [batch for batch in seen if "media_pixels" in batch]
    assert [batch["input_ids"].shape for batch in first] == [(1, 8)] * 2
    assert [batch["table"][0, -1] for batch in first] == [TRASH] * 2  # more keys than tokens
    plain = [batch for batch in seen if "media_pixels" not in batch and not int(batch["lengths"].min())]
    assert [batch["input_ids"].shape for batch in plain] == [(1, 4)]  # nothing of what images made


def test_a_batch_that_no_program_takes_costs_its_own_texts_alone() -> None:
    def submit(batch: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        if int(batch["input_ids"].max()) > 50:
            raise InputError("no program takes it")
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs(batch["input_ids"][:, -1], torch.zeros(len(batch["lengths"]))))
        return done

    made = Generator(TERMS, TAKES, GeneratingStages(submit, 1))
    texts = [made.start([token], TextOptions(3)) for token in (60, 7)]
    with pytest.raises(InputError, match="no program takes it"):
        texts[0].result(timeout=30)
    assert made.start([8], TextOptions(3)).result(timeout=30) == [8, 8, 8]
    made.close()
