"""Weights that a model has under several names, where the checkpoint has other values under these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ir.checkpoint.tensors import Held
from ir.checkpoint.ties import check_ties, untie
from ir.errors import SourceError
from ir.graph import Param
from ir.sizes import TensorType
from ir.sources import read_source

TIED = LlamaConfig(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    vocab_size=16,
    tie_word_embeddings=True,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def held(head: float) -> dict[str, Held]:
    return {"embed.weight": Held(torch.ones(5, 4)), "head.weight": Held(torch.full((5, 4), head))}


@pytest.mark.parametrize("head", [1.0, 2.0])
def test_a_weight_of_two_values_becomes_two(head: float) -> None:
    model = Model()
    notes = list(untie(model, held(head)))
    assert (model.head.weight is model.embed.weight) == (head == 1.0)
    note = "embed.weight and head.weight have other values, and so are two weights, though the model ties them"
    assert notes == ([] if head == 1.0 else [note])


def test_copies_that_the_dtype_of_the_model_makes_equal_are_one() -> None:
    """transformers compares what it has loaded."""
    fine = torch.full((5, 4), 1 / 3)
    tensors = {"embed.weight": Held(fine), "head.weight": Held(fine.bfloat16())}
    assert not list(untie(Model().bfloat16(), tensors))
    check_ties(tied(torch.bfloat16), tensors, "weights")
    with pytest.raises(SourceError, match="differ in weights"):
        check_ties(tied(torch.float32), tensors, "weights")
    assert len(list(untie(Model(), tensors))) == 1


def tied(dtype: torch.dtype) -> Param:
    return Param("head", TensorType((5, 4), dtype), fqns=("embed.weight", "head.weight"))


def test_ties_of_two_values_are_refused() -> None:
    check_ties(tied(torch.float32), held(1.0), "weights")
    with pytest.raises(
        SourceError, match=r"embed.weight and head.weight are one weight in the model and differ in wei"
    ):
        check_ties(tied(torch.float32), held(2.0), "weights")


def test_a_folder_is_untied_as_transformers_unties_it(tmp_path: Path) -> None:
    LlamaForCausalLM(TIED).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    head = torch.randn(16, 8)
    save_file({**load_file(file), "lm_head.weight": head}, file, metadata={"format": "pt"})
    source = read_source(str(tmp_path))
    parameters = dict(source.model.named_parameters(remove_duplicate=False))
    assert parameters["lm_head.weight"] is not parameters["model.embed_tokens.weight"]
    assert torch.equal(source.weights["lm_head.weight"], head)
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path).lm_head.weight, head)
