"""A served decoder, with the client that people have: from a checkpoint folder to tokens, and none of them lost."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from examples import serve_chat
from tests.support.patience import PATIENCE
from tests.support.running.browsing import chromium
from tests.support.running.serving import Served, serving

openai = pytest.importorskip("openai")
GREEDY: dict[str, Any] = {"model": "model", "temperature": 0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served") / "llama"
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 2, "max_position_embeddings": 512}
    t.LlamaForCausalLM(t.LlamaConfig(**sizes, **heads, eos_token_id=63, pad_token_id=0)).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w1"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("w2{% for m in messages %} {{ m.content }}{% endfor %} w4")
    return folder


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Served]:
    """`stagecut serve CHECKPOINT`: it is cut into the cache, and served from there."""
    flags = ("--stages", "2", "--generate", "--max-length", "400", "--sequences", "4", "-q")
    with serving(checkpoint, *flags, command=("stagecut", "serve")) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def words_of(ids: torch.Tensor) -> list[str]:
    return [f"w{i}" for i in ids.tolist() if i != 63]


def test_completions_are_those_of_generate(checkpoint: Path, client: Any) -> None:
    model: Any = t.AutoModelForCausalLM.from_pretrained(checkpoint)
    prompts = [[3, 14, 15], [9, 2]]
    made = client.completions.create(**GREEDY, prompt=["w3 w14 w15", "w9 w2"], max_tokens=12, logprobs=0)
    for ids, choice in zip(prompts, made.choices, strict=True):
        wanted = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
        assert choice.text.split() == words_of(wanted)
        assert choice.finish_reason == ("stop" if 63 in wanted.tolist() else "length")
        assert len(choice.logprobs.tokens) == len(wanted)
        assert all(logprob < 0 for logprob in choice.logprobs.token_logprobs)
    assert (made.usage.prompt_tokens, made.usage.total_tokens - made.usage.completion_tokens) == (5, 5)
    [by_ids] = client.completions.create(**GREEDY, prompt=[3, 14, 15], max_tokens=12).choices
    assert (by_ids.text, words_of(torch.tensor(by_ids.token_ids))) == ("", made.choices[0].text.split())
    biased = {**GREEDY, "prompt": "w3 w14 w15", "max_tokens": 4, "logit_bias": {"17": 100}}
    assert client.completions.create(**biased).choices[0].text.split() == ["w17"] * 4
    assert [entry.id for entry in client.models.list()] == ["model"]


def test_chats_are_streamed_as_they_are_whole(client: Any) -> None:
    asked = {"model": "model", "messages": [{"role": "user", "content": "w7 w8"}], "max_tokens": 9, "seed": 5}
    whole = client.chat.completions.create(**asked, temperature=0.9, n=2)
    events = [
        *client.chat.completions.create(**asked, temperature=0.9, stream=True, stream_options={"include_usage": True})
    ]
    assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == whole.choices[0].message.content
    assert events[-1].usage.prompt_tokens == 4
    assert events[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_a_stop_text_ends_a_completion_before_it(client: Any) -> None:
    [all_of_it] = client.completions.create(**GREEDY, prompt="w3", max_tokens=8).choices
    third = all_of_it.text.split()[2]
    [stopped] = client.completions.create(**GREEDY, prompt="w3", max_tokens=8, stop=third).choices
    assert stopped.text == all_of_it.text[: all_of_it.text.index(third)]
    assert stopped.finish_reason == "stop"
    [last] = client.completions.create(**GREEDY, prompt="w3", max_tokens=3, stop=third).choices
    assert (last.text, last.finish_reason) == (stopped.text, "stop")


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"presence_penalty": 1.0}, "presence_penalty", "`presence_penalty` is not supported"),
        ({"logprobs": 3}, "logprobs", "`logprobs` of other tokens than the written ones are not supported"),
        ({"temperature": 3}, "temperature", "`temperature` is 3; it must be from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "`max_tokens` must be a whole number of at least 1"),
        ({"max_tokens": 4000}, None, "a text of this artifact has at most 400"),
        ({"logit_bias": {"w3": 1}}, "logit_bias", "it must be a token id and a number"),
        ({"n": 99}, "n", "`n` must be a whole number from 1 to 16"),
        ({"stop": [1]}, "stop", "`stop` must be a text or a list of texts"),
        ({"extra_body": {"wishes": 3}}, "wishes", "`wishes` is not supported"),
        ({"prompt": [3, 64]}, None, "64"),
        ({"prompt": []}, "prompt", "`prompt` must be a text, a list of token ids, or a list of these"),
        ({"prompt": ""}, None, "empty"),
        ({"prompt": [5] * 401}, None, "the prompt has 401 tokens, and a text of this artifact at most 400"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_field_that_is_wrong_is_named(
    client: Any, fields: dict[str, Any], param: str, message: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "model", "prompt": "w3", "stream": stream} | fields)
    assert message in refused.value.body["message"]
    assert refused.value.param == param


def test_the_example_chats(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    serve_chat.main(served.url, "w3 w5")
    words = capsys.readouterr().out.split()
    assert 1 <= len(words) <= 32
    assert all(re.fullmatch(r"w\d+", word) for word in words)


def test_another_model_is_not_there(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'other', only 'model'"):
        client.completions.create(model="other", prompt="w3")


def test_the_page_shows_what_is_served_and_tries_it(served: Served, tmp_path: Path) -> None:
    with chromium(tmp_path) as page:
        page.driver.get(served.url)
        WebDriverWait(page.driver, PATIENCE).until(
            lambda _: page.all("body[data-ready=true] #stages tbody tr:nth-child(2)")
        )
        assert (page.driver.title, page.one("#state").text) == ("model · stagecut", "ready")
        page.one("#chat").send_keys(Keys.SPACE)  # off
        page.one("#temperature").send_keys("0")
        page.one("#tokens").send_keys(Keys.CONTROL, "a", Keys.NULL, "30")
        page.one("#text").send_keys("w3 w5", Keys.CONTROL, Keys.ENTER)
        WebDriverWait(page.driver, PATIENCE).until(lambda _: page.one("#said").text.startswith("30 tokens"))
        asked = {"model": "model", "prompt": "w3 w5", "temperature": 0, "max_tokens": 30}
        whole = served.http.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        assert page.one("#answer").get_property("textContent") == whole
        WebDriverWait(page.driver, PATIENCE).until(lambda _: "200" in page.one("#statuses").text)
        assert len(page.all("#cut svg .cluster.stage-1 > path[style*=opacity]")) == 1  # lit
        for scheme, light in (("light", True), ("dark", False)):
            page.prefer(scheme)
            ink = page.ask("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")
            assert (max(ink) < 128) is light
        loaded = page.ask("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith(served.url) for name in loaded)
        assert page.complaints == []


def test_a_text_goes_on_after_its_engine_died(served: Served, client: Any) -> None:
    asked = {**GREEDY, "temperature": 0.8, "seed": 3, "prompt": "w3 w4", "max_tokens": 300}
    [whole] = client.completions.create(**asked).choices
    stream = client.completions.create(**asked, stream=True)
    engine = served.engine()
    pieces = [next(stream).choices[0].text]
    engine.kill()
    pieces += [event.choices[0].text for event in stream]
    assert "".join(pieces) == whole.text
    engine.wait(PATIENCE)
    served.wait()
    assert served.engine().pid != engine.pid


def test_a_client_that_leaves_holds_no_pages(served: Served, client: Any) -> None:
    for _ in range(6):  # more than have room at once
        with client.completions.create(**GREEDY, prompt="w3 w5", max_tokens=390, stream=True) as stream:
            next(stream)
    for _ in range(200):
        if "stagecut_texts 0.0" in served.http.get("/metrics").text:
            break
        time.sleep(0.05)
    [choice] = client.completions.create(**GREEDY, prompt="w3", max_tokens=3).choices
    assert choice.text


def test_plain_requests_are_told_where_texts_are_asked(served: Served) -> None:
    answer = served.http.post("/v2/models/model/infer", json={"inputs": []})
    assert (answer.status_code, "ask it by /v1/completions" in answer.text) == (400, True)
