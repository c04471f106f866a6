"""Decoders compiled to continue texts: their tokens, and their pools."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors import safe_open
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from typer.testing import CliRunner

from examples import own_decoder
from ir.errors import CompileError
from ir.paged import attention
from passes.cli.main import app
from passes.compilation.api import compile_model
from passes.compilation.auto import auto_partition
from runtime import Pipeline
from runtime.check.artifact import faults
from runtime.device.kinds import DEVICE_KINDS, DeviceKind
from runtime.errors import InputError, ManifestError, StageError
from runtime.generation.__main__ import main as generate_main
from runtime.generation.continuation import Continuation
from runtime.manifest.manifest import Manifest
from runtime.stage.linear.merged_linear import MergedLinear
from runtime.stage.loader import load_stages
from tests.support.checking import EXAMPLES
from tests.support.running.forked_jobs import run

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
HEADS: dict[str, Any] = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
ROOM: dict[str, Any] = {"max_length": 40, "sequences": 3, "page": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    model = t.LlamaForCausalLM(t.LlamaConfig(**SIZES, **HEADS, eos_token_id=63, pad_token_id=0))
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.9)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w1"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def verified(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """An artifact whose stages were verified beside the uncut step, and the tokens that its first pipeline wrote."""
    out = tmp_path_factory.mktemp("out") / "llama"
    options: dict[str, Any] = {"generate": True, "verify": True, "size_limit": 0.0}
    with auto_partition(checkpoint, devices=2, out=out, **options, **ROOM) as pipe:
        return out, pipe.start([5, 6, 7], max_new_tokens=3, temperature=0.0).result()


@pytest.fixture(scope="module")
def artifact(verified: tuple[Path, list[int]]) -> Path:
    return verified[0]


def check_tokens(model: Any, artifact: Path) -> None:
    """Texts of several lengths, all in progress at once, are continued as `model.generate` does."""
    prompts = [torch.randint(1, 63, (1, n), generator=torch.Generator().manual_seed(n)) for n in (2, 11, 5)]
    greedy = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    wanted = [model.generate(p, attention_mask=torch.ones_like(p), **greedy)[0].tolist() for p in prompts]
    with Pipeline.load(artifact) as pipe:
        texts = [pipe.start(p[0].tolist(), max_new_tokens=20, temperature=0.0) for p in prompts]
        found = [p[0].tolist() + text.result() for p, text in zip(prompts, texts, strict=True)]
    assert [f + [63] * (len(w) - len(f)) for f, w in zip(found, wanted, strict=True)] == wanted


def test_tokens_are_those_of_generate(checkpoint: Path, artifact: Path) -> None:
    check_tokens(t.LlamaForCausalLM.from_pretrained(checkpoint), artifact)


def test_tokens_are_those_of_generate_where_layers_of_one_input_are_merged(
    checkpoint: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs."""
    monkeypatch.setitem(DEVICE_KINDS, "cpu", DeviceKind("cpu", merges_linear=True))
    manifest = Manifest.read(artifact)
    stages = load_stages(artifact, manifest, [torch.device("cpu")] * 2, strict=True)
    merged = [m for stage in stages for m in stage.programs[0].module.modules() if isinstance(m, MergedLinear)]
    assert len(merged) == 2 * (3 + 2)  # of each layer: queries, keys and values; the two ways up
    check_tokens(t.LlamaForCausalLM.from_pretrained(checkpoint), artifact)


def test_tokens_are_those_of_generate_under_rules_on_what_may_follow(checkpoint: Path, artifact: Path) -> None:
    model: Any = t.LlamaForCausalLM.from_pretrained(checkpoint)
    ids, options = torch.tensor([[5, 9, 12, 5]]), {"max_new_tokens": 20, "do_sample": False}
    more: dict[str, Any]
    with Pipeline.load(artifact) as pipe:
        plain = pipe.generate(ids, **options)
        first, second = plain[0, 4:6].tolist()
        for more in (
            {"repetition_penalty": 1.8},
            {"no_repeat_ngram_size": 2, "forced_eos_token_id": 63},
            {"bad_words_ids": [[first, second], [7]], "min_new_tokens": 3, "eos_token_id": [first, 63]},
        ):
            wanted = model.generate(ids, **options, pad_token_id=0, **more)
            assert torch.equal(pipe.generate(ids, **options, **more), wanted)
            assert not torch.equal(plain, wanted)
        banned = int(plain[0, 4])
        assert banned not in pipe.generate(ids, **options, logit_bias={banned: -float("inf")})[0, 4:]


def test_rows_with_padding_are_those_of_generate(checkpoint: Path, artifact: Path) -> None:
    model: Any = t.LlamaForCausalLM.from_pretrained(checkpoint)
    options: dict[str, Any]
    with Pipeline.load(artifact) as pipe:
        for pad, options in (
            (0, {"max_length": 20}),
            (0, {"max_length": 20, "min_length": 19, "eos_token_id": [*range(1, 64, 2)]}),
            (9, {"max_new_tokens": 5, "pad_token_id": 9}),
            (0, {"max_new_tokens": 5, "eos_token_id": 0}),  # what may end a text is no padding
        ):
            ids = torch.tensor([[pad, pad, pad, pad, 5, 7], [11, 12, 13, 14, 15, 16], [pad, 21, 22, 23, 24, 25]])
            assert torch.equal(
                pipe.generate(ids, do_sample=False, **options), model.generate(ids, do_sample=False, **options)
            )
        with pytest.raises(InputError, match="pad_token_id is 'x'; it must be a token id"):
            pipe.generate(ids, pad_token_id="x")


def test_a_stream_that_nobody_reads_ends_its_texts(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(Continuation, "cancel", lambda text: ended.append(text.row))
    with Pipeline.load(artifact) as pipe:
        pipe.generate([[5, 6]] * 3, stream=True, max_new_tokens=3)
        assert ended == [0, 1, 2]


def test_tokens_are_those_of_generate_where_a_window_has_moved_on(tmp_path: Path) -> None:
    """In stages that read pages where they lie."""
    torch.manual_seed(0)
    model = t.Gemma2ForCausalLM(t.Gemma2Config(**SIZES, **HEADS, eos_token_id=63, sliding_window=6)).eval()
    compile_model(model, out=tmp_path / "out", stages=2, generate=True, attention="paged", **ROOM, size_limit=0.0)
    stages = [(tmp_path / "out" / f"stage_{i}.py").read_text() for i in range(2)]
    assert "window=6" in "".join(stages)
    assert not any("scaled_dot_product_attention" in text or "triton" in text for text in stages)
    assert not [*faults(tmp_path / "out")]
    check_tokens(model, tmp_path / "out")
    kernel = tmp_path / "out" / "paged_attention.py"
    assert kernel.read_text() == Path(attention.__file__).read_text()
    kernel.write_text(f"{kernel.read_text()}\n\ndef paged_attention(*given, **options): raise ValueError('edited')\n")
    assert [*faults(tmp_path / "out")] == ["paged_attention.py: it was changed after the compiler wrote it"]
    with pytest.raises(ManifestError, match=r"paged_attention\.py differs from the manifest: it was edited"):
        Pipeline.load(tmp_path / "out", strict=True)
    with (
        pytest.warns(match=r"paged_attention\.py differs"),
        Pipeline.load(tmp_path / "out") as pipe,
        pytest.raises(StageError, match="edited"),
    ):
        pipe.generate([[5, 6]], max_new_tokens=2)


def test_tokens_are_those_of_generate_where_layers_have_states(tmp_path: Path) -> None:
    """One layer with a convolution, one that attends: a program for one token, and one for more."""
    torch.manual_seed(0)
    kinds = {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}
    model = t.Lfm2ForCausalLM(t.Lfm2Config(**SIZES, **HEADS, **kinds, eos_token_id=63)).eval()
    model.generation_config.eos_token_id = 63
    compile_model(model, out=tmp_path / "out", stages=2, generate=True, **ROOM, size_limit=0.0)
    manifest = Manifest.read(tmp_path / "out")
    assert [program.name for program in manifest.programs] == ["decode", "prefill"]
    assert (manifest.generation.slots, manifest.generation.together) == (4, "even")
    assert ".cached_conv.index_put_((slots,), " in (tmp_path / "out" / "stage_0.py").read_text()
    check_tokens(model, tmp_path / "out")


def test_tokens_are_those_of_generate_where_an_encoder_reads_the_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    sizes |= {"decoder_start_token_id": 0}
    model: Any = t.T5ForConditionalGeneration(t.T5Config(**sizes, eos_token_id=63)).eval()
    model.generation_config.eos_token_id = 63
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    compile_model(model, out=tmp_path / "out", stages=2, generate=True, **ROOM, size_limit=0.0)
    prompts = [torch.randint(1, 63, (n,), generator=torch.Generator().manual_seed(n)) for n in (2, 11, 5, 7)]
    with Pipeline.load(tmp_path / "out") as pipe:
        found = [pipe.generate(p[None], max_new_tokens=12) for p in prompts]
        texts = pipe.generate([p.tolist() for p in prompts], max_new_tokens=12)
        with pytest.raises(InputError, match="the source has 41 tokens, and this artifact takes at most 40"):
            pipe.start([5] * 41)
    model.config.use_cache = True
    for prompt, ids, text in zip(prompts, found, texts, strict=True):
        assert torch.equal(ids, model.generate(prompt[None], max_new_tokens=12, do_sample=False))
        assert ids[0, 1:].tolist() in (text, [*text, 63])


def test_texts_are_read_by_the_tokenizer_of_the_checkpoint(artifact: Path) -> None:
    with Pipeline.load(artifact) as pipe:
        text = pipe.start("w3 w14 w15", max_new_tokens=6, temperature=0.0).result()
        ids = pipe.start([3, 14, 15], max_new_tokens=6, temperature=0.0).result()
    assert text.split() == [f"w{i}" for i in ids if i != 63]


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "too long": ([5] * 41, {}, "the prompt has 41 tokens, and a text of this artifact at most 40"),
    "empty": ([], {}, "a prompt is empty"),
    "no id": ([5, 64], {}, "the token id 64 is outside of the vocabulary, 0 to 63"),
    "no room": ([5] * 9, {}, "a text of 40 tokens needs 10 pages, and the artifact has 5"),
    "no token": ([5], {"max_new_tokens": 0}, "max_new_tokens is 0, which leaves no token to write"),
    "no tokenizer": ("w5", {}, "has no tokenizer, so prompts must be token ids"),
}


def test_bad_prompts_leave_texts_in_progress_as_they_are(artifact: Path, tmp_path: Path) -> None:
    """And the command says one sentence of each, with the status 2."""
    other = shutil.copytree(artifact, tmp_path / "other", ignore=shutil.ignore_patterns("tokenizer"))
    with Pipeline.load(other, tokens=20) as pipe:
        wanted = pipe.start([3, 14], max_new_tokens=18, temperature=0.0).result()
        begun = pipe.start([3, 14], max_new_tokens=18, temperature=0.0)
        for prompt, options, message in BAD.values():
            for ask in (pipe.start, pipe.generate):
                with pytest.raises(ValueError, match=message):
                    ask(prompt, **options)
        assert begun.result() == wanted


@pytest.mark.parametrize("case", [name for name in BAD if name != "no room"])
def test_the_command_says_one_sentence_of_a_bad_prompt(
    case: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(artifact, tmp_path / "other", ignore=shutil.ignore_patterns("tokenizer"))
    prompt, options, message = BAD[case]
    given = [prompt] if isinstance(prompt, str) else [" ".join(map(str, prompt)), "--ids"]
    flags = [part for name, n in options.items() for part in (f"--{name.replace('_', '-')}", str(n))]
    assert generate_main([str(other), *given, *flags]) == 2
    assert re.fullmatch(f"error: .*{message}.*\n", capsys.readouterr().err)


def test_what_is_no_decoder_is_told_how_to_be_compiled(tmp_path: Path) -> None:
    """And a checkpoint without a tokenizer is not cut for a text."""
    t.BertModel(t.BertConfig(**SIZES, num_attention_heads=2)).save_pretrained(tmp_path / "bert")
    with pytest.raises(
        CompileError, match=r"BertModel does not predict the next token .* compile it without --generate"
    ):
        compile_model(tmp_path / "bert", out=tmp_path / "out", stages=2, generate=True)
    done = CliRunner().invoke(app, ["generate", str(tmp_path / "bert"), "w5"])
    assert done.exit_code == 2
    assert "bert has no tokenizer.json, so its prompts are token ids; say --ids" in done.stderr.replace("\n", " ")


def test_an_artifact_without_a_tokenizer_is_asked_by_ids(artifact: Path, tmp_path: Path) -> None:
    other = shutil.copytree(artifact, tmp_path / "other", ignore=shutil.ignore_patterns("tokenizer"))
    done = CliRunner().invoke(app, ["generate", str(other), "w5"])
    assert done.exit_code == 2
    assert "other has no tokenizer.json, so its prompts are token ids; say --ids" in done.stderr.replace("\n", " ")


def test_tokens_are_the_same_in_several_processes(artifact: Path, tmp_path: Path) -> None:
    given = ["generate", str(artifact), "5 6 7", "--ids", "--max-new-tokens", "6", "--temperature", "0"]
    script = f"import runpy\nsys.argv = {given}\nrunpy.run_module('runtime.generation', run_name='__main__')\n"
    ended = run(tmp_path, script, ranks=2)
    assert ended.status == 0, ended.err
    with Pipeline.load(artifact) as pipe:
        steps = pipe.generate([5, 6, 7], stream=True, max_new_tokens=6, temperature=0.0)
        assert ended.out.split() == [str(step.token) for step in steps]


def test_stages_are_verified_beside_the_uncut_step(artifact: Path, verified: tuple[Path, list[int]]) -> None:
    assert 0 < len(verified[1]) <= 3
    with Pipeline.load(artifact) as pipe:
        assert pipe.start([5, 6, 7], max_new_tokens=3, temperature=0.0).result() == verified[1]


def test_pools_are_in_no_file_and_zeros_again_after_a_reset(artifact: Path) -> None:
    stages = load_stages(artifact, Manifest.read(artifact), [torch.device("cpu")] * 2, strict=True)
    pools = [pool for stage in stages for pool in stage.programs[0].pools.values()]
    assert len(pools) == 4
    assert not any(stage.first_state for stage in stages), "no copy of them is kept"
    for pool in pools:
        pool.fill_(1)
    for stage in stages:
        stage.reset()
    assert not any(pool.any() for pool in pools)
    for file in artifact.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert not [name for name in weights.keys() if name.endswith(("keys", "values"))]  # noqa: SIM118


def test_texts_begin_anew_after_a_reset(artifact: Path) -> None:
    """Pages of a prefix that was known are zeros again."""
    prompt = [3, 14, 15, 9, 2, 6, 5, 3, 5]
    with Pipeline.load(artifact) as pipe:
        wanted = pipe.start(prompt, max_new_tokens=6, temperature=0.0).result()
        pipe.reset()
        assert pipe.start(prompt, max_new_tokens=6, temperature=0.0).result() == wanted


def test_the_size_of_pools_is_bound_where_they_are_loaded(artifact: Path, tmp_path: Path) -> None:
    """Of all processes alike, as rank 0 gives the pages out; a stage file has the planned size as a default alone."""
    source = (artifact / "stage_0.py").read_text()
    assert "torch.zeros(pages, 4, 1, 16, dtype=torch.float32)" in source
    assert "def __init__(self, pages=31):" in source
    assert 'def load(cls, path, device="cpu", pages=31):' in source
    prompt = [3, 14, 15, 9, 2, 6]
    with Pipeline.load(artifact) as pipe:
        wanted = pipe.start(prompt, max_new_tokens=6, temperature=0.0).result()
    for processes in (False, True):
        with Pipeline.load(artifact, tokens=12, processes=processes) as pipe:
            assert pipe.manifest.generation.pages == 4
            assert pipe.start(prompt, max_new_tokens=6, temperature=0.0).result() == wanted
            pipe.prepare()
            with pytest.raises(InputError, match="a decoder prepares steps of so many texts, `batch`, and not by seq"):
                pipe.prepare(seq=512)
            with pytest.raises(InputError, match="batch is 0; it must be a number of texts, at least 1"):
                pipe.prepare(batch=0)
            with pytest.raises(InputError, match=r"needs 4 pages, and the artifact has 3; load it with more tokens"):
                pipe.start(prompt, max_new_tokens=10)
    with Pipeline.load(artifact, tokens=400) as pipe:  # more than planned
        texts = [pipe.start(prompt, max_new_tokens=30, temperature=0.0, eos_token_id=[]) for _ in range(8)]
        assert {tuple(text.result()[:6]) for text in texts} == {tuple(wanted)}
    [stage, _] = load_stages(
        artifact, Manifest.read(artifact).with_room_for(50), [torch.device("cpu")] * 2, strict=True
    )
    assert {pool.shape for pool in stage.programs[0].pools.values()} == {(14, 4, 1, 16)}
    with pytest.raises(InputError, match="tokens is 0; it must be a number of tokens, at least 1, or None"):
        Pipeline.load(artifact, tokens=0)
    compile_model(torch.nn.Linear(2, 2), (torch.ones(2, 2),), out=tmp_path / "out", stages=1)
    with pytest.raises(
        ManifestError, match="Linear continues no texts, so it has no room for tokens; compile with --generate"
    ):
        Pipeline.load(tmp_path / "out", tokens=8)


def test_the_plan_says_what_the_cache_takes_and_how_fast_texts_grow(artifact: Path) -> None:
    plan = Manifest.read(artifact).plan
    pool = 31 * 4 * 16 * 4  # 31 pages of 4 tokens, with a head of 16 float32
    assert sum(stage["cache_bytes"] for stage in plan["stages"]) == 4 * pool  # keys and values of two layers
    assert [found["texts"] for found in plan["decoding"]] == [1, 2, 3]
    one, _, three = plan["decoding"]
    assert one["tokens_per_second"] == pytest.approx(1 / one["token_seconds"])
    assert three["tokens_per_second"] > 1.5 * one["tokens_per_second"]


def test_a_plan_for_accelerators_has_as_many_groups_of_texts_as_there_are(checkpoint: Path, tmp_path: Path) -> None:
    """There the host orders steps ahead, so no further group is under way while it chooses the next one."""
    compile_model(checkpoint, out=tmp_path / "out", generate=True, cluster="h200x2", size_limit=0.0, **ROOM)
    plan = Manifest.read(tmp_path / "out").plan
    assert len(plan["stages"]) == 2
    one, _, three = plan["decoding"]
    assert three["token_seconds"] < 1.3 * one["token_seconds"]  # as two texts and one take turns, not three


def test_a_trace_tells_prefills_from_steps(artifact: Path, tmp_path: Path) -> None:
    with Pipeline.load(artifact) as pipe:
        with pipe.trace(tmp_path / "trace.json"):
            pipe.start([3, 14, 15], max_new_tokens=3, temperature=0.0).result()
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    runs = [event for event in events if event.get("cat") == "compute" and event["tid"] == 0]
    assert [run["name"] for run in runs] == ["prefill 0", "decode 1", "decode 2"]
    assert runs[0]["cname"] != runs[1]["cname"] == runs[2]["cname"]


def test_stages_change_their_pools_in_place(artifact: Path) -> None:
    text = (artifact / "stage_0.py").read_text()
    assert ".keys.index_put_((" in text
    assert "copy_(keys" not in text
    assert "nn.Buffer(torch.zeros(pages, 4, 1, 16, dtype=torch.float32), persistent=False)" in text
    assert 'def load(cls, path, device="cpu", pages=31):' in text


def test_the_manifest_says_how_texts_are_continued(artifact: Path) -> None:
    found = Manifest.read(artifact).generation
    assert (found.page, found.pages, found.window_pages, found.max_length, found.vocabulary) == (4, 31, 0, 40, 64)
    assert (found.stop, found.pad) == ((63,), 0)
    assert found.defaults == {"temperature": 0.7, "top_k": 50, "top_p": 0.9}


def test_the_plan_says_how_many_texts_have_room(artifact: Path) -> None:
    notes = Manifest.read(artifact).plan["notes"]
    assert any(note.startswith("room for 120 tokens: 3 texts of 40 (") for note in notes)
    assert not any("use_cache" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 40}, "--max-length is for decoders that continue texts; say --generate, too"),
        ({"generate": True, "sequences": 2, "tokens": 99}, "say either for how many texts"),
        ({"generate": True, "dynamic_shapes": {}}, "--generate knows how a decoder is called"),
        ({"generate": True, "max_length": 40, "tokens": 39}, "--tokens 39 is less than one text of --max-length 40"),
        ({"generate": True, "max_length": 65}, "--max-length 65 is more than the 64 positions"),
    ],
)
def test_options_that_do_not_go_together(
    checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompileError, match=re.escape(message)):
        compile_model(checkpoint, out=tmp_path / "out", stages=2, **options)


def test_a_decoder_without_transformers_continues_texts_as_it_does_alone(tmp_path: Path) -> None:
    plan = compile_model(
        EXAMPLES / "own_decoder.py", out=tmp_path / "own", stages=2, generate=True, sequences=3, size_limit=0.0
    )
    assert plan.graph.decoding.max_length == 128
    whole = own_decoder.model()
    table = torch.arange(1, 8)[None]
    with Pipeline.load(tmp_path / "own") as pipe, torch.no_grad():
        texts = [pipe.start(prompt, max_new_tokens=18) for prompt in ([5, 9, 2], [7] * 30)]
        for prompt, text in zip(([5, 9, 2], [7] * 30), texts, strict=True):
            found = text.result()
            for i, token in enumerate(found):
                ids = torch.tensor([[*prompt, *found[:i]]])
                assert int(whole(ids, torch.tensor([0]), torch.tensor([ids.shape[1]]), table).argmax()) == token
