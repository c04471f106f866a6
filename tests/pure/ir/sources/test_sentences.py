"""Sentence transformers: the modules behind the transformer, as their library computes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import SourceError
from ir.sources.checkpoint_folder import read_checkpoint_folder
from ir.sources.sentences.folder import (
    SentencePart,
    _dense,
    _layer_norm,
    _pooling,
    _settings,
    sentence_parts,
    with_sentence_parts,
)
from ir.sources.sentences.modules import SentencePooling
from ir.sources.source import Reading, Source

STATES = torch.tensor([[[1.0, -2.0], [3.0, 8.0], [7.0, 7.0]], [[9.0, 9.0], [2.0, 4.0], [5.0, 1.0]]])
MASK = torch.tensor([[1, 1, 0], [0, 1, 1]])  # the second text is padded on the left


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("cls", [[1.0, -2.0], [2.0, 4.0]]),
        ("max", [[3.0, 8.0], [5.0, 4.0]]),
        ("mean", [[2.0, 3.0], [3.5, 2.5]]),
        ("mean_sqrt_len_tokens", [[4.0 / 2**0.5, 6.0 / 2**0.5], [7.0 / 2**0.5, 5.0 / 2**0.5]]),
        ("weightedmean", [[7.0 / 3, 14.0 / 3], [4.0, 2.0]]),
        ("lasttoken", [[3.0, 8.0], [5.0, 1.0]]),
    ],
)
def test_states_are_pooled(way: str, expected: list[list[float]]) -> None:
    assert torch.allclose(SentencePooling([way])(STATES, MASK), torch.tensor(expected))
    both = SentencePooling([way, "mean"])(STATES, MASK)
    assert torch.equal(both[:, :2], SentencePooling([way])(STATES, MASK))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[3.0, 8.0], [5.0, 4.0]]),
        ({"pooling_strategy": "sum", "activation_function": "relu"}, [[1.0, 0.0, 3.0, 8.0], [2.0, 4.0, 5.0, 1.0]]),
        ({"activation_function": "log1p_relu"}, [[3.0, 8.0], [5.0, 4.0]]),
    ],
)
def test_words_are_weighted(settings: dict[str, str], expected: list[list[float]], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    pooling = _pooling(SentencePart("SpladePooling", tmp_path))
    assert pooling is not None
    states = torch.tensor(expected).view(2, -1, 2).log1p()
    states = states.log1p() if settings.get("activation_function") == "log1p_relu" else states
    assert torch.allclose(pooling(STATES, MASK), states.sum(1))


def test_words_that_are_weighted_in_an_unknown_way(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pooling_strategy": "mean"}))
    assert _pooling(SentencePart("SpladePooling", tmp_path)) is None


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None) -> tuple[torch.Tensor]:
        return (self.table(input_ids),)


def saved(folder: Path, pooling: dict[str, Any], dense: dict[str, Any]) -> Source:
    """A folder with a transformer, pooling, a dense layer and a norm; and the source of the transformer alone."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, settings in {"1_Pooling": pooling, "2_Dense": dense}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(settings))
    layer = nn.Linear(4, 3)
    save_file({f"linear.{name}": t for name, t in layer.state_dict().items()}, folder / "2_Dense/model.safetensors")
    save_file(Transformer().state_dict(), folder / "model.safetensors")
    weights = Checkpoint.open(folder).for_model(Transformer())
    ids = torch.tensor([[1, 2, 3]])
    return Source("s", Transformer(), (), {"input_ids": ids}, None, weights)


DENSE = {
    "in_features": 4,
    "out_features": 3,
    "activation_function": "torch.nn.modules.activation.Tanh",
    "use_residual": False,
}


@pytest.mark.parametrize("pooling", [{"pooling_mode": "mean"}, {"pooling_mode_mean_tokens": True, "other": 4}])
def test_a_folder_is_built_as_it_says(pooling: dict[str, Any], tmp_path: Path) -> None:
    source = saved(tmp_path, pooling, DENSE)
    whole = with_sentence_parts(source, sentence_parts(tmp_path))
    assert not whole.notes
    values = {name: whole.weights[name] for name in whole.weights}
    ids = torch.tensor([[1, 2, 3], [4, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    found = torch.func.functional_call(whole.model, values, (ids, mask))["sentence_embedding"]
    table, dense = source.weights["table.weight"], "behind.2_Dense.linear."
    mean = torch.stack([table[[1, 2, 3]].mean(0), table[4]])
    vector = torch.tanh(mean @ values[f"{dense}weight"].t() + values[f"{dense}bias"])
    assert torch.allclose(found, vector / vector.norm(dim=1, keepdim=True))


def test_what_the_library_does_around_its_modules_is_done_or_noted(tmp_path: Path) -> None:
    source = saved(tmp_path, {"pooling_mode": "mean", "include_prompt": False}, DENSE)
    plain = with_sentence_parts(source, sentence_parts(tmp_path))
    prompts = {"query": "find: ", "document": ""}
    around = {"truncate_dim": 2, "prompts": prompts, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(around))
    whole = with_sentence_parts(source, sentence_parts(tmp_path))
    pooled = "tokens of a prompt are pooled, too, which the library leaves out (include_prompt false)"
    assert plain.notes == (pooled,)
    assert whole.notes == (
        "embeddings are cut to their first 2 numbers, as truncate_dim says",
        "the library puts prompts before texts, which stages do not: query 'find: ' (by default)",
        pooled,
    )
    assert list(whole.weights) == list(plain.weights)
    made, cut = (
        torch.func.functional_call(s.model, dict(plain.weights), (torch.tensor([[1, 2]]),))["sentence_embedding"]
        for s in (plain, whole)
    )
    assert torch.equal(cut, made[:, :2])


def test_a_classifier_of_setfit_is_noted(tmp_path: Path) -> None:
    source = saved(tmp_path, {"pooling_mode": "mean"}, DENSE)
    (tmp_path / "model_head.pkl").touch()
    (note,) = with_sentence_parts(source, sentence_parts(tmp_path)).notes
    assert note == "model_head.pkl, the classifier of SetFit, is not read: stages return what it takes"


@pytest.mark.parametrize(
    ("pooling", "dense"),
    [({"pooling_mode": "attention"}, DENSE), ({"pooling_mode": "mean"}, {**DENSE, "use_residual": True})],
)
def test_modules_that_are_not_built_are_noted(pooling: dict[str, Any], dense: dict[str, Any], tmp_path: Path) -> None:
    source = saved(tmp_path, pooling, dense)
    whole = with_sentence_parts(source, sentence_parts(tmp_path))
    assert whole.model is source.model
    assert whole.notes == (
        "modules.json has Pooling and Dense and Normalize behind the transformer: stages are the transformer alone",
    )


def test_a_layer_norm_has_the_names_of_its_file() -> None:
    norm, vector = _layer_norm({"dimension": 2}), torch.tensor([[1.0, 3.0]])
    assert list(norm.state_dict()) == ["norm.weight", "norm.bias"]
    assert torch.equal(norm(vector), nn.functional.layer_norm(vector, (2,)))


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    assert sentence_parts(tmp_path) == ()
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(SourceError, match=r"cannot read .*modules.json: "):
        sentence_parts(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(SourceError, match=r"config.json holds a list, not the settings of a module"):
        _settings(tmp_path)
    with pytest.raises(SourceError, match=r"a Dense module has no sizes: 'in_features'"):
        _dense({})
    with pytest.raises(SourceError, match=r"a LayerNorm module has no dimension"):
        _layer_norm({})
    with pytest.raises(SourceError, match=r"a Dense module has the activation Odd, which torch does not have"):
        _dense({**DENSE, "activation_function": "mine.Odd"})


def test_a_table_of_words_is_no_transformer(tmp_path: Path) -> None:
    listed = [{"type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding"}]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "0_StaticEmbedding").mkdir()
    with pytest.raises(
        SourceError, match=r"is a sentence transformer that begins with StaticEmbedding, which has no c"
    ):
        read_checkpoint_folder(tmp_path, Reading())
