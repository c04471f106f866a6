"""Decoders as steps over pages: what they keep, how they are checked, how a token is drawn."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ir.decoding import MediaPlaces
from ir.errors import SourceError
from ir.sources import Reading, Source, read_source
from ir.sources.decoder import pretrained
from ir.sources.decoder.caches import kept
from ir.sources.decoder.caches.cached import CachedStep
from ir.sources.decoder.caches.kept import kept_layers
from ir.sources.decoder.made import step_of
from ir.sources.decoder.places import positions_of_prompt
from ir.sources.meta import parameters_on_meta
from ir.sources.source import Variant
from runtime.generation.prompts.media_images import grid_positions
from runtime.manifest.manifest import MediaPlaces as RunPlaces

VOCABULARY = 64
BODY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": VOCABULARY}
SIZES: dict[str, Any] = {
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def decoder(kind: str, **options: Any) -> Any:
    return t.AutoModelForCausalLM.from_config(t.AutoConfig.for_model(kind, **BODY, **options)).eval()


def source(model: nn.Module) -> Source:
    return Source("decoder", model, (), {}, None, {})


class TestWhatIsKept:
    def test_of_every_layer_in_the_module_that_attends(self) -> None:
        found = step_of(source(decoder("llama", **SIZES))).decoding
        assert found.pools == tuple(
            f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("keys", "values")
        )
        assert (found.max_length, found.page, found.vocabulary, found.window_pools) == (64, 8, VOCABULARY, ())

    def test_of_sliding_layers_apart(self) -> None:
        found = step_of(source(decoder("gemma2", **SIZES, sliding_window=8))).decoding
        assert found.window == 8
        assert {name.split(".")[2] for name in found.window_pools} == {"0"}
        assert {name.split(".")[2] for name in found.pools} == {"1"}

    def test_of_experts(self) -> None:
        assert step_of(source(decoder("mixtral", **SIZES, num_local_experts=2))).decoding.pools

    def test_shares_its_weights_with_the_model_which_stays_as_it_is(self) -> None:
        model = decoder("llama", **SIZES)
        step = step_of(source(model)).model
        assert {id(p) for p in step.parameters()} == {id(p) for p in model.parameters()}
        assert type(model) is t.LlamaForCausalLM
        assert not [name for name, _ in model.named_buffers() if "keys" in name]


class TestALargeModel:
    """Its cached logits are compared in a model of its class with fewer and smaller layers."""

    def large(self, kind: str, **options: Any) -> Any:
        sizes = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 40}
        with parameters_on_meta():
            return t.AutoModelForCausalLM.from_config(t.AutoConfig.for_model(kind, **sizes, **options)).eval()

    def test_is_compared_with_few_heads_and_few_numbers_a_token(self) -> None:
        config = pretrained._checked(self.large("llama")).config
        assert (config.num_hidden_layers, config.num_key_value_heads, config.num_attention_heads) == (2, 2, 8)
        assert (config.hidden_size, config.head_dim) == (128, 128)

    def test_is_compared_with_few_heads_where_the_hidden_size_goes_with_them(self, monkeypatch: Any) -> None:
        def run(model: Any, _: Any) -> None:
            if model.config.hidden_size != model.config.num_attention_heads * 128:
                raise SourceError("its code fails")

        monkeypatch.setattr(pretrained, "kept_layers", run)
        config = pretrained._checked(self.large("llama")).config
        assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (1024, 8, 128)

    def test_is_compared_with_all_heads_where_other_sizes_go_with_their_number(self, monkeypatch: Any) -> None:
        def run(model: Any, _: Any) -> None:
            if model.config.num_attention_heads < 32:
                raise SourceError("its code fails")

        monkeypatch.setattr(pretrained, "kept_layers", run)
        assert pretrained._checked(self.large("llama")).config.num_attention_heads == 32


@pytest.mark.slow
class TestWhatLayersKeep:
    """It is found in a run on fake tensors, in which layers that are alike run once a kind."""

    @pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mamba2"])
    def test_is_the_same_where_each_runs(self, kind: str, monkeypatch: Any) -> None:
        heads = {"num_heads": 4, "head_dim": 16, "n_groups": 1} if kind == "mamba2" else {}
        config = t.AutoConfig.for_model(kind, **{**BODY, **SIZES, **heads, "num_hidden_layers": 12})
        with parameters_on_meta():
            model = t.AutoModelForCausalLM.from_config(config).eval()
        calls: list[Any] = []
        dispatch = FakeTensorMode.dispatch
        monkeypatch.setattr(FakeTensorMode, "dispatch", lambda *given: calls.append(given[1]) or dispatch(*given))
        once, number = kept_layers(model, {}), len(calls)
        monkeypatch.setattr(kept, "alike_modules", lambda _: {})
        assert kept_layers(model, {}) == once
        assert len(once) == 12
        assert len(calls) - number > 1.5 * number


@pytest.mark.slow
class TestWhatACacheCannotDo:
    def test_texts_are_computed_anew_where_logits_are_others_with_a_cache(self) -> None:
        model = decoder("gpt_neo", attention_types=[[["global", "local"], 1]], window_size=8, num_layers=2)
        found = step_of(source(model))
        assert (found.decoding.cached, found.decoding.together, found.decoding.tables) == (False, "equal", ())
        assert any("no cache: " in note and "logits with a cache differ by" in note for note in found.notes)

    def test_texts_are_computed_anew_where_there_is_no_cache(self) -> None:
        found = step_of(
            source(t.OpenAIGPTLMHeadModel(t.OpenAIGPTConfig(n_embd=32, n_layer=1, n_head=2, vocab_size=64)))
        )
        assert not found.decoding.cached
        assert any("keeps nothing of a text in a cache" in note for note in found.notes)

    def test_a_model_whose_generate_reads_more_than_the_text_is_refused(self) -> None:
        model = t.XLNetLMHeadModel(t.XLNetConfig(d_model=32, n_layer=1, n_head=2, d_inner=32, vocab_size=64)).eval()
        with pytest.raises(SourceError, match="its `generate` gives forward more than the text"):
            step_of(source(model))

    def test_recurrences_are_two_programs_for_rows_of_equally_many_new_tokens(self) -> None:
        mamba = {"mamba_d_state": 16, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_chunk_size": 8}
        found = step_of(source(decoder("bamba", **SIZES, **mamba, mamba_n_groups=1, attn_layer_indices=[1])))
        assert found.decoding.slot_pools == ("model.layers.0.mamba.conv", "model.layers.0.mamba.recurrent")
        assert found.decoding.pools == ("model.layers.1.self_attn.keys", "model.layers.1.self_attn.values")
        assert (found.decoding.together, [call.name for call in found.calls]) == ("even", ["decode", "prefill"])

    def test_recurrences_that_are_right_token_by_token_alone(self) -> None:
        found = step_of(source(decoder("mamba", state_size=8, time_step_rank=4)))
        assert (found.decoding.chunk, [call.name for call in found.calls]) == (1, ["decode"])


def test_what_a_generation_config_asks_for_is_done_or_said() -> None:
    model = decoder("llama", **SIZES)
    model.generation_config.update(suppress_tokens=[3, 5], begin_suppress_tokens=[7], num_beams=4, min_length=0)
    model.generation_config.update(
        no_repeat_ngram_size=3, forced_eos_token_id=2, stop_strings=["."], forced_bos_token_id=4, max_new_tokens=40
    )
    found = step_of(source(model))
    suppressed = {"suppress_tokens": [3, 5], "begin_suppress_tokens": [7]}
    counts = {"max_new_tokens": 40, "no_repeat_ngram_size": 3}
    assert found.decoding.defaults == {**suppressed, **counts, "forced_eos_token_id": [2]}
    asked = "num_beams 4, stop_strings ['.'], forced_bos_token_id 4, which stages do not follow"
    assert [note for note in found.notes if asked in note]
    assert not [note for note in found.notes if "min_length" in note]


@pytest.mark.parametrize("fast", [False, True])
def test_a_tokenizer_that_an_artifact_cannot_have_is_said(tmp_path: Path, fast: bool) -> None:
    t.LlamaConfig(**BODY, **SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    if fast:
        (tmp_path / "tokenizer.json").write_text("{}")
    found = read_source(str(tmp_path), Reading(generate=True, weights=False))
    assert any("prompts are token ids" in note for note in found.notes) is not fast


def test_all_files_that_list_tokens_go_along(tmp_path: Path) -> None:
    t.LlamaConfig(**BODY, **SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    for name in names:
        (tmp_path / name).write_text("{}")
    found = read_source(str(tmp_path), Reading(generate=True, weights=False))
    assert [file.name for file in found.tokenizer] == names


class TestMedia:
    def given(self, rows: int = 1, images: int = 1) -> dict[str, Tensor]:
        ids = torch.tensor([[9, 3, 3, 3, 3, 8]] * rows)
        return {"input_ids": ids, "pixel_values": torch.randn(images, 3, 8, 8)}

    def llava(self) -> nn.Module:
        body = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        eye = {"model_type": "clip_vision_model", **body, "image_size": 8, "patch_size": 4, "projection_dim": 32}
        words = {"model_type": "llama", **BODY, **SIZES}
        given = {"vision_config": eye, "text_config": words, "image_token_index": 3, "image_seq_length": 4}
        return t.LlavaForConditionalGeneration(t.LlavaConfig(**given)).eval()

    def test_stand_before_a_text_in_a_program_for_its_whole_prompt(self) -> None:
        found = step_of(replace(source(self.llava()), kwargs=self.given()), max_length=40)
        main, media = found.calls
        assert (main.name, media.name, media.optional) == ("main", "media", True)
        assert media.kwargs.keys() - main.kwargs.keys() == {"pixel_values"}
        assert media.kwargs["input_ids"].tolist() == [[9, 3, 3, 3, 3, 9, 3, 3, 3, 3, 8]]
        assert found.decoding.media == {"media": MediaPlaces(3, 8, each=4)}
        assert isinstance(media.dynamic_shapes, dict)
        assert media.dynamic_shapes["media"]["pixel_values"].keys() == {0}  # any number of images
        assert not [note for note in found.notes if "texts alone" in note]

    def test_are_as_many_as_in_the_example_where_a_model_fixes_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ir.sources.decoder.media.places_of_any_number", lambda *_: 0)
        found = step_of(replace(source(self.llava()), kwargs=self.given()), max_length=40)
        assert found.decoding.media == {"media": MediaPlaces(3, 4)}
        assert found.calls[1].kwargs["input_ids"].tolist() == self.given()["input_ids"].tolist()

    def test_that_would_have_other_logits_are_left_out_with_a_note(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def blind(self: CachedStep, *given: Any) -> Tensor:
            input_ids, lengths, counts, tables = given
            return plain(
                self, input_ids, lengths, counts, {name: t for name, t in tables.items() if name != "pixel_values"}
            )

        plain = CachedStep.logits
        monkeypatch.setattr(CachedStep, "logits", blind)
        found = step_of(replace(source(self.llava()), kwargs=self.given()), max_length=40)
        assert [call.name for call in found.calls] == ["main"]
        assert any("texts alone: with pixel_values its logits with a cache differ by" in note for note in found.notes)

    def test_of_sizes_that_decide_what_is_made_of_them_are_said_to_need_fixing(self) -> None:
        body = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        eye = {"model_type": "clip_vision_model", **body, "image_size": 8, "patch_size": 4, "projection_dim": 32}
        words = {"model_type": "llama", **BODY, **SIZES}
        tiles: dict[str, Any] = {"image_token_index": 3, "image_grid_pinpoints": [[8, 16], [16, 8]]}
        config = t.LlavaNextConfig(vision_config=eye, text_config=words, **tiles)
        found = step_of(source(t.LlavaNextForConditionalGeneration(config).eval()), max_length=40)
        assert [call.name for call in found.calls] == ["main"]
        assert any("texts alone: --fix image_sizes=336x336 reads an image of 336" in note for note in found.notes)

    def test_of_an_example_that_does_not_say_whose_they_are(self) -> None:
        found = step_of(replace(source(self.llava()), kwargs=self.given(rows=2, images=3)), max_length=40)
        assert any("texts alone: its example has 2 texts, and inputs" in note for note in found.notes)


class TestPositionsOfMedia:
    """Qwen2-VL counts the positions of an image from the values of its grid."""

    def given(self, rows: int, columns: int) -> dict[str, Tensor]:
        ids = torch.tensor([[9, *[3] * (rows * columns // 4), 8]])
        grid = torch.tensor([[1, rows, columns]])
        return {"input_ids": ids, "pixel_values": torch.randn(rows * columns, 24), "image_grid_thw": grid}

    @pytest.fixture
    def model(self) -> Any:
        eye = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 2}
        rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
        words = {**BODY, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8}
        words |= {"num_key_value_heads": 1, "rope_parameters": rope, "max_position_embeddings": 64}
        config = t.Qwen2VLConfig(text_config=words, vision_config=eye, image_token_id=3)
        return t.Qwen2VLForConditionalGeneration(config).eval()

    def test_are_an_input_and_move_those_of_later_tokens(self, model: Any) -> None:
        calls = tuple(Variant(name, (), self.given(*sizes)) for name, sizes in (("tall", (8, 2)), ("square", (4, 4))))
        found = step_of(replace(source(model), kwargs=calls[0].kwargs, program="tall", variants=calls[1:]), 40)
        main, tall, square = found.calls
        assert "shifts" in main.kwargs
        assert (tall.name, square.name, square.fix) == ("media_tall", "media_square", ("media.image_grid_thw",))
        assert square.kwargs["position_ids"][:, 0].tolist()[1:] == [
            [0, 1, 1, 1, 1, 3],
            [0, 1, 1, 2, 2, 3],
            [0, 1, 2, 1, 2, 3],
        ]
        places = found.decoding.media["media_square"]
        assert (places.count, places.counts) == (4, (0, 4))
        assert places.offsets[-1] == (0, 0, -2, -2, 0, -2)
        assert model.model.rope_deltas is None  # what its code sets is not left behind

    def test_follow_from_the_grids_of_any_images(self, model: Any) -> None:
        found = step_of(replace(source(model), kwargs=self.given(8, 2)), 40)
        _, media = found.calls
        places = found.decoding.media["media"]
        assert places == MediaPlaces(3, 4, (), (), "image_grid_thw", 2, 1)
        assert media.fix == ()
        assert isinstance(media.dynamic_shapes, dict)
        dims = media.dynamic_shapes["media"]
        assert dims["pixel_values"].keys() == dims["image_grid_thw"].keys() == {0}
        ids, grid = torch.tensor([[9, 3, 3, 8, 8, *[3] * 6, 8]]), torch.tensor([[1, 4, 2], [1, 4, 6]])
        kinds = {"mm_token_type_ids": (ids == 3).long(), "image_grid_thw": grid}
        wanted = positions_of_prompt(model, ids, kinds)
        assert wanted is not None
        assert torch.equal(grid_positions(RunPlaces(**asdict(places)), ids[0].tolist(), grid), wanted)
        fixed = step_of(replace(source(model), kwargs=self.given(8, 2), fix=("image_grid_thw",)), 40)
        assert fixed.calls[1].fix == ("media.image_grid_thw",)

    def test_that_are_not_known_leave_texts_alone(self, model: Any) -> None:
        given = self.given(4, 4) | {"image_grid_thw": torch.tensor([[1, 4, 8]])}  # more places than the prompt has
        found = step_of(replace(source(model), kwargs=given), 40)
        assert any("texts alone: positions of its prompts are not known (" in note for note in found.notes)

    def test_that_do_not_follow_from_places_leave_texts_alone(self, model: Any, monkeypatch: Any) -> None:
        def squares(ids: Tensor, _: Any) -> Tensor:
            return torch.arange(ids.shape[1])[None] ** 2

        monkeypatch.setattr(model, "_prepare_position_ids_for_generation", squares)
        found = step_of(replace(source(model), kwargs=self.given(4, 4)), 40)
        assert any("texts alone: its positions do not follow" in note for note in found.notes)


def test_variants_of_a_decoder_of_texts_alone_are_refused() -> None:
    given = replace(source(decoder("llama", **SIZES)), fix=("grid",))
    with pytest.raises(
        SourceError, match="--fix and variants are for media before a text, of which: it takes ids alone"
    ):
        step_of(given)


class TestEncoders:
    @pytest.mark.parametrize("kind", ["T5", "UMT5"])  # UMT5 looks ahead uncut, where transformers makes it no mask
    def test_read_the_source_in_the_first_step_of_a_text(self, kind: str) -> None:
        sizes = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "vocab_size": 32}
        model = getattr(t, f"{kind}ForConditionalGeneration")(getattr(t, f"{kind}Config")(**sizes)).eval()
        found = step_of(source(model), max_length=40)
        assert [call.name for call in found.calls] == ["start", "next"]
        assert ["source" in call.kwargs for call in found.calls] == [True, False]
        assert found.decoding.source_pools == tuple(
            f"decoder.block.0.layer.1.EncDecAttention.source_{name}" for name in ("keys", "values")
        )
        assert (found.decoding.source, found.decoding.begin, found.decoding.together) == (40, (0,), "equal")

    def test_of_sounds_make_as_many_states_of_each(self) -> None:
        body = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 4}
        sizes = {"max_source_positions": 12, "max_target_positions": 20, "vocab_size": 32}
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        fields: dict[str, Any] = {**body, **heads, **sizes, **ends}
        model = t.WhisperForConditionalGeneration(t.WhisperConfig(**fields)).eval()
        found = step_of(source(model))
        assert (found.decoding.source, found.decoding.max_length, found.decoding.together) == (12, 20, "even")
        assert found.kwargs["source"].shape[1:] == (4, 24)


class TestRefused:
    def test_a_model_without_next_tokens(self) -> None:
        small = t.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        with pytest.raises(SourceError, match="does not predict the next token"):
            step_of(source(t.BertModel(small)))

    def test_more_tokens_than_positions(self) -> None:
        with pytest.raises(SourceError, match="--max-length 65 is more than the 64 positions"):
            step_of(source(decoder("llama", **SIZES)), max_length=65)

    def test_a_module_with_other_arguments(self) -> None:
        with pytest.raises(SourceError, match="its forward does not take input_ids, lengths, counts, table"):
            step_of(source(nn.Linear(2, 2)))
