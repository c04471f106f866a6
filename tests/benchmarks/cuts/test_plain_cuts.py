"""Where the cuts of usual models lie: between layers, unless that costs more than the slack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import transformers as t
from torch import nn

from ir.capture import capture
from ir.graph import Graph
from ir.plan import plan_stages
from passes.check_sizes import CheckSizes
from passes.defaults import default_passes
from passes.options.options import CutAt
from passes.pipeline import PassPipeline
from passes.split_stages import SplitStages
from tests.benchmarks.cuts.models import language_model, llama_70b, mixtral_8x7b, server, tokens, without_weights
from tests.benchmarks.report import Table
from tests.support.checking import Call

SLACK = SplitStages().slack
STAGES = (2, 4, 8)


def llama_8b() -> tuple[nn.Module, Call]:
    config = t.LlamaConfig(vocab_size=128256, intermediate_size=14336, num_key_value_heads=8)
    return language_model(t.LlamaForCausalLM, config)


def gpt2() -> tuple[nn.Module, Call]:
    return language_model(t.GPT2LMHeadModel, t.GPT2Config(n_embd=1600, n_layer=48, n_head=25))


def bert() -> tuple[nn.Module, Call]:
    config = t.BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    with without_weights():
        model = t.BertForMaskedLM(config).eval()
    return model, Call.of(input_ids=tokens(4, 512, config.vocab_size))


def t5() -> tuple[nn.Module, Call]:
    config = t.T5Config(d_model=1024, d_ff=4096, num_heads=16, num_layers=24)
    model, call = language_model(t.T5ForConditionalGeneration, config)
    return model, Call.of(**call.kwargs, decoder_input_ids=tokens(4, 512, config.vocab_size))


MODELS: dict[str, Callable[[], tuple[nn.Module, Call]]] = {
    "Llama-3-8B": llama_8b,
    "Llama-3-70B": llama_70b,
    "GPT-2 XL": gpt2,
    "BERT large": bert,
    "T5 large": t5,
    "Mixtral-8x7B": mixtral_8x7b,
}


@cache
def graph_of(name: str) -> Graph:
    model, call = MODELS[name]()
    return capture(model, call.args, call.kwargs, dynamic_shapes=None)


@cache
def passes(**options: Any) -> PassPipeline:
    """All but check-sizes; those before the cut run once for all numbers of stages."""
    return PassPipeline(tuple(p for p in default_passes(**options) if not isinstance(p, CheckSizes)))


def planned(name: str, stages: int, **options: Any) -> Graph:
    """The graph with its transfers."""
    *_, last = passes(**options).run(graph_of(name), server(stages))
    return last.graph


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    columns = ("model", "stages", "the cut", "values sent", "above the best", "--cut-at between-modules")
    command = "pytest tests/benchmarks/cuts/test_plain_cuts.py -s"
    table = Table("plain-cuts", command, columns, complete=len(MODELS) * len(STAGES))
    yield table
    table.publish()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stages", STAGES)
def test_a_cut_is_between_layers_unless_that_costs_more_than_the_slack(name: str, stages: int, table: Table) -> None:
    graph = planned(name, stages)
    split, sent = graph.split, len(plan_stages(graph, server(stages)).transfers)
    between = planned(name, stages, cut_at=CutAt.between_modules, slack=0.0).split
    costs = between.value / split.best - 1
    table.add(name, str(stages), split.place, str(sent), f"{split.above:.1%}", f"+{costs:.1%}")
    assert split.above <= SLACK + 1e-9
    if split.place != "between layers":
        assert costs > SLACK
