"""Tokens that stand only beside `tokenizer.json`, as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from runtime.errors import InputError
from runtime.generation.prompts.text import Tokenizer, library_tokenizer
from runtime.manifest.manifest import TOKENIZER

TEXT = "the<s> end <a> <b><end> the <x><y> <img><boi><q> <e><no><bb><p><z><n> <m> <k> </s>."


def token(content: str, special: bool = True, **fields: Any) -> dict[str, Any]:
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, "special": special, **plain, **fields}


def typed(content: str, special: bool = True, **fields: Any) -> dict[str, Any]:
    return {"__type": "AddedToken", **token(content, special, **fields)}


def listed(*tokens: dict[str, Any]) -> dict[str, Any]:
    return {"added_tokens_decoder": {str(900 - i): one for i, one in enumerate(tokens)}}


LISTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "numbered": (listed(token("<a>"), token("<b>", False), token("<m>", lstrip=True, rstrip=True)), {}),
    "numbered anew": (listed(token("<s>", False), token("<k>", lstrip=True)), {}),
    "numbered and named": (
        {"pad_token": "<n>", "bos_token": "<s>"} | listed(token("<s>", False), token("<n>", False)),
        {},
    ),
    "named": ({"eos_token": "<end>", "bos_token": "<bb>", "pad_token": "<end>", "unk_token": None}, {}),
    "named, in the vocabulary": ({"eos_token": "the"}, {}),
    "named, with fields": ({"eos_token": typed("<end>", lstrip=True), "cls_token": typed("<m>", False)}, {}),
    "named, in tokenizer.json": ({"eos_token": "<k>"}, {}),
    "named by the model": ({"image_token": "<img>", "boi_token": typed("<boi>"), "eos_token": "<e>"}, {}),
    "a list": ({"extra_special_tokens": [typed("<x>"), "<y>", typed("<m>", False)]}, {}),
    "a list under the older name": ({"additional_special_tokens": ["<x>", "<y>"]}, {}),
    "a dict": ({"extra_special_tokens": {"image_token": "<img>", "boi": "<boi>"}, "q_token": "<q>"}, {}),
    "both names": ({"additional_special_tokens": ["<x>"], "extra_special_tokens": ["<y>"]}, {}),
    "a map": (
        {"eos_token": "<no>", "q_token": "<q>"},
        {
            "special_tokens_map": {
                "eos_token": token("<e>", rstrip=True),
                "bos_token": "<bb>",
                "image_token": "<img>",
                "additional_special_tokens": ["<x>"],
            }
        },
    ),
    "a map of more": (
        {"extra_special_tokens": ["<p>"]},
        {"special_tokens_map": {"extra_special_tokens": ["<x>", "<p>"]}},
    ),
    "a map of names": ({}, {"special_tokens_map": {"extra_special_tokens": {"image_token": "<img>"}}}),
    "a map that does not count": (listed(token("<a>")), {"special_tokens_map": {"eos_token": "<e>"}}),
    "added tokens": ({"eos_token": "<e>"}, {"added_tokens": {"<z>": 281, "<e>": 280, "<s>": 3}}),
    "added tokens that do not count": (listed(token("<a>")), {"added_tokens": {"<z>": 281}}),
    "special tokens as any text": ({"split_special_tokens": True, "eos_token": "<end>"}, {}),
    "the same again": ({"unk_token": typed("<x>"), "bos_token": "<x>", "extra_special_tokens": {"boi": "<x>"}}, {}),
    "a map with added tokens": (
        {},
        {"special_tokens_map": {"additional_special_tokens": ["<x>"]}, "added_tokens": {"<x>": 280, "<y>": 281}},
    ),
    "nothing": ({}, {}),
}


def folder_with(folder: Path, config: dict[str, Any], **others: dict[str, Any]) -> Path:
    """A byte-level tokenizer of `<s>`, `</s>` and `<k>`, which is not special, and files beside it."""
    folder.mkdir()
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    library.train_from_iterator(["the end of the"], trainer)
    library.add_tokens([AddedToken("<k>")])
    library.save(str(folder / "tokenizer.json"))
    for name, content in {"tokenizer_config": config, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", LISTS)
def test_tokens_beside_a_tokenizer_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config, others = LISTS[name]
    names = ("bos", "eos", "pad", "image", "boi", "q")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}" + "".join(f"{{{{ {n}_token }}}}|" for n in names)
    folder = folder_with(tmp_path / TOKENIZER, config | {"chat_template": template}, **others)
    theirs, ours, model = AutoTokenizer.from_pretrained(folder), Tokenizer(tmp_path), library_tokenizer(folder)
    ids = ours.encode(TEXT)
    assert ids == theirs(TEXT)["input_ids"]
    for shown in (False, True):
        assert model.decode(ids, skip_special_tokens=not shown) == theirs.decode(ids, skip_special_tokens=not shown)
    chat = [{"role": "user", "content": TEXT}]
    assert ours.encode_chat(chat) == theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert repr(model.get_added_tokens_decoder()) == repr(theirs.added_tokens_decoder)


def test_fields_of_tokens_that_transformers_takes_no_more(tmp_path: Path) -> None:
    """Version 4 wrote them, and read them."""
    older = {"additional_special_tokens": [{"content": "<x>"}], "bos_token": {"content": "<bb>", "lstrip": False}}
    folder_with(tmp_path / TOKENIZER, {"eos_token": {"content": "<e>"}}, special_tokens_map=older)
    ids = Tokenizer(tmp_path).encode("<bb><e><x>")
    assert (len(ids), Tokenizer(tmp_path).special_ids(["<bb>", "<e>", "<x>"])) == (3, {*ids})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"tokenizer_config.json cannot be read: Expecting property name"),
        ('{"added_tokens_decoder": {"0": 7}}', "the tokens that .* lists cannot be read: ValueError: 7 is no token"),
        ('{"added_tokens_decoder": ["<s>"]}', "lists cannot be read: AttributeError"),
    ],
)
def test_files_that_list_no_tokens(config: str, message: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / TOKENIZER, {})
    (folder / "tokenizer_config.json").write_text(config)
    with pytest.raises(InputError, match=message):
        Tokenizer(tmp_path).encode("a")
