"""Texts as ids and back, a token at a time."""

from __future__ import annotations

import json
import re
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from runtime.errors import InputError
from runtime.generation.generate import TextGeneration
from runtime.generation.generator import Generator
from runtime.generation.options import NO_ADAPTERS
from runtime.generation.outputs import StepOutputs
from runtime.generation.prompts.prompt_reader import Prompt, PromptReader, are_several
from runtime.generation.prompts.text import Tokenizer, ids_of
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import TOKENIZER, CallSignature, Generation, ProgramEntry, Symbol, Tensor
from tests.support.patience import PATIENCE

TEXT = "the naïve café — 😀 the end of the café\n"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("artifact")
    (folder / TOKENIZER).mkdir()
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    library.train_from_iterator(["the end of the"], trainer)
    library.save(str(folder / TOKENIZER / "tokenizer.json"))
    template = (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role != 'user' %}{{ raise_exception('only users speak') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}me:{% endif %}"
    )
    settings = {"bos_token": {"content": "<s>"}, "chat_template": template}
    (folder / TOKENIZER / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def read(artifact: Path, ids: list[int], *ends: str) -> tuple[list[str], bool]:
    """The text that each token adds, until one of `ends`."""
    reader = Tokenizer(artifact).reader(ends)
    parts: list[str] = []
    for i, token in enumerate(ids):
        text, found = reader.add(token, i + 1 == len(ids))
        parts.append(text)
        if found:
            return parts, True
    return parts, False


def test_the_parts_of_a_text_are_whole_characters(artifact: Path) -> None:
    ids = Tokenizer(artifact).encode(TEXT * 5)
    parts, _ = read(artifact, ids)
    assert "".join(parts) == TEXT * 5
    assert not any("\ufffd" in part for part in parts)
    assert "😀" in parts


@pytest.mark.parametrize(
    ("end", "before"),
    [("end", "the naïve café — 😀 the "), ("é — 😀", "the naïve caf"), ("\n", TEXT[:-1]), ("nowhere", TEXT)],
)
def test_a_text_ends_before_what_stops_it(artifact: Path, end: str, before: str) -> None:
    """Though it comes in several tokens, none of it is handed out."""
    parts, found = read(artifact, Tokenizer(artifact).encode(TEXT), end)
    assert "".join(parts) == before
    assert found == (end != "nowhere")


def test_what_was_held_back_is_told_where_an_id_ends_the_text(artifact: Path) -> None:
    tokenizer = Tokenizer(artifact)
    reader = tokenizer.reader(["end!"])
    parts = [reader.add(token, False)[0] for token in tokenizer.encode("the end")]
    assert "".join([*parts, reader.end()]) == "the end"
    assert "".join(parts) == "the "


def test_a_special_token_among_the_stop_texts_ends_a_text_that_does_not_show_it(artifact: Path) -> None:
    """As <|im_end|>, where the checkpoint says that another id ends a text."""
    texts: Any = object.__new__(TextGeneration)
    tokenizer = texts._tokenizer = Tokenizer(artifact)
    end = tokenizer.encode("</s>")
    assert len(end) == 1
    ids = [*tokenizer.encode("the end"), *end, *tokenizer.encode(" of the")]

    def submit(given: Any, ready: Any) -> Future[StepOutputs]:
        done: Future[StepOutputs] = Future()
        done.set_result(StepOutputs(torch.tensor([ids[int(given["lengths"])]]), torch.zeros(1)))
        return done

    texts._generation, texts._adapters = Generation(page=4, pages=9, max_length=30, vocabulary=280), NO_ADAPTERS
    texts._generator = Generator(texts._generation, ("input_ids", "lengths", "table"), GeneratingStages(submit, 1))
    for stop, text in (("</s>", "the end"), (["</s>", "en"], "the "), ("<s>", "the end of the")):
        made = texts._start(Prompt((5,), text=True), {"max_new_tokens": len(ids), "stop": stop})
        assert made.result(PATIENCE) == text
        assert made.steps[-1].reason == ("length" if stop == "<s>" else "stop")
    texts.close()


def test_a_text_is_neither_cut_nor_padded_where_the_last_call_before_it_was_saved_was(
    artifact: Path, tmp_path: Path
) -> None:
    """As tokenizers of finetuned checkpoints are: a save keeps what the call before it did."""
    library = Library.from_file(str(artifact / TOKENIZER / "tokenizer.json"))
    library.enable_truncation(4)
    library.enable_padding(length=4)
    (tmp_path / TOKENIZER).mkdir()
    library.save(str(tmp_path / TOKENIZER / "tokenizer.json"))
    for text in (TEXT, "t"):
        assert Tokenizer(tmp_path).encode(text) == Tokenizer(artifact).encode(text)


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).mkdir()
    (tmp_path / TOKENIZER / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer.json cannot be read as a tokenizer"):
        Tokenizer(tmp_path).encode("a")


def test_a_continuation_keeps_the_space_before_its_first_word(tmp_path: Path) -> None:
    """Which words of some tokenizers show only behind others; an answer to a chat begins without."""
    library = Library(models.WordLevel({"the": 0, "end": 1}, unk_token="the"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / TOKENIZER).mkdir()
    library.save(str(tmp_path / TOKENIZER / "tokenizer.json"))
    reader = PromptReader(Generation(page=4, vocabulary=2), tokenizer := Tokenizer(tmp_path))
    prompt = reader.one("the " * 20)
    assert prompt.goes_on
    behind, answer = tokenizer.reader(before=prompt.ids), tokenizer.reader()
    assert [behind.add(token, False)[0] for token in (1, 0)] == [" end", " the"]
    assert [answer.add(token, False)[0] for token in (1, 0)] == ["end", " the"]


@pytest.mark.slow
def test_other_threads_run_while_a_long_text_is_read(artifact: Path) -> None:
    """Those that tell that the process lives."""
    text, passes, done = "the end " * 100_000, 0, threading.Event()

    def count() -> None:
        nonlocal passes
        while not done.wait(0.001):
            passes += 1

    thread = threading.Thread(target=count)
    thread.start()
    library = Library.from_file(str(artifact / TOKENIZER / "tokenizer.json"))
    before = passes
    ids = ids_of(library, text, add_special_tokens=False)
    passed = passes - before
    done.set()
    thread.join()
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert passed > 2


def test_a_chat_is_put_as_its_template_says(artifact: Path) -> None:
    ids = Tokenizer(artifact).encode_chat([{"role": "user", "content": "the end"}])
    assert ids[0] == 0  # <s>
    assert Library.from_file(str(artifact / TOKENIZER / "tokenizer.json")).decode(ids) == "user: the end\nme:"


def test_an_artifact_without_a_tokenizer_takes_ids(tmp_path: Path) -> None:
    reader = PromptReader(Generation(page=4, vocabulary=9), Tokenizer(tmp_path))
    assert reader.one([1, 2]).ids == (1, 2)
    with pytest.raises(InputError, match="has no tokenizer, so prompts must be token ids"):
        reader.one("a text")


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (8, 6)), ("int64", (1,))])
def test_the_shortest_prompt_is_of_what_an_encoder_takes(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    reader = PromptReader(Generation(page=4, vocabulary=9, source=3, begin=(2, 5)), Tokenizer(tmp_path))
    sizes = {"batch": Symbol(1, None, 2), "frames": Symbol(1, None, 6)}
    source = Tensor("source", dtype, ("batch", 8, "frames")[: len(shape) + 1])
    prompt = reader.shortest(ProgramEntry("start", (source,), (), sizes, (), CallSignature((), {}, {}), ()))
    assert prompt.ids == (2, 5)
    assert prompt.source is not None
    assert (prompt.source.given.shape, str(prompt.source.given.dtype)) == (shape, f"torch.{dtype}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "a prompt is empty; it needs at least one token"),
        ("", "a prompt is empty"),
        ([1, 900], "the token id 900 is outside of the vocabulary, 0 to 279"),
        ([1, 2.5], "2.5 in a prompt is no token id"),
        ("a \ud83d", "a prompt holds a lone surrogate, which is no character"),
        ("\ud83d" * (1 << 16), "a lone surrogate, which is no character"),
        ({"a": 1}, "a prompt is a text, a list of ids or a chat; this one is of type dict"),
        ([{"role": "dog", "content": "a"}], "the chat template cannot render these messages: only users speak"),
    ],
)
def test_what_is_no_prompt(artifact: Path, given: object, message: str) -> None:
    reader = PromptReader(Generation(page=4, vocabulary=280), Tokenizer(artifact))
    with pytest.raises(InputError) as said:
        reader.one(given)
    assert message in str(said.value)


def test_one_prompt_and_several() -> None:
    chat = [{"role": "user", "content": "a"}]
    assert not any(map(are_several, ["a", [1, 2], chat]))
    assert all(map(are_several, [["a"], [[1, 2]], [chat]]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(2, 3), r"the ids are torch.float32 \[2, 3\]; they must be whole numbers, \[batch, length\]"),
        (torch.ones(3, dtype=torch.int64), r"the ids are torch.int64 \[3\]; they must be whole numbers"),
        (torch.ones(2, 3, dtype=torch.bool), "the ids are torch.bool"),
    ],
)
def test_ids_that_are_none(given: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        PromptReader(Generation(), Tokenizer(tmp_path)).rows(given, None)


def test_a_mask_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"attention_mask is \[2, 4\]; it must be of the ids' shape, \[2, 3\]"):
        PromptReader(Generation(), Tokenizer(tmp_path)).rows(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 4))


def test_a_mask_that_is_no_tensor_and_no_prompts(tmp_path: Path) -> None:
    reader, ids = PromptReader(Generation(vocabulary=9), Tokenizer(tmp_path)), torch.ones(2, 3, dtype=torch.int64)
    mask: Any = [[1, 1, 1]]
    with pytest.raises(InputError, match=r"attention_mask is \[\[1, 1, 1\]\]; it must be a tensor of the ids' shape"):
        reader.read(ids, mask, {})
    with pytest.raises(InputError, match=r"the batch of prompts is \[0, 3\]; it must be of at least one"):
        reader.read(ids[:0], None, {})


def test_a_chat_without_a_tokenizer_is_not_told_to_become_a_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tokenizer, so prompts must be token ids"):
        Tokenizer(tmp_path).encode_chat([{"role": "user", "content": "the end"}])


def test_a_chat_without_a_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template; give the prompt as one text"):
        _ = Tokenizer(tmp_path)._template


@pytest.mark.parametrize(
    ("library", "prompt", "message"),
    [
        ("tokenizers", "the end", "texts need the library tokenizers.*pip install"),
        ("jinja2.sandbox", [{"role": "user", "content": "the end"}], "chats need the library jinja2.*pip install"),
    ],
)
def test_a_text_without_its_library(
    library: str, prompt: Any, message: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        PromptReader(Generation(), Tokenizer(artifact)).one(prompt)


def test_start_takes_one_prompt() -> None:
    with pytest.raises(InputError, match="start takes one prompt"):
        object.__new__(TextGeneration).start(["one", "two"], {})
