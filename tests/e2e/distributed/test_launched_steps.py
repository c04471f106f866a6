"""Steps of a decoder that the thread which orders them launches itself, over stand-ins for graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import transformers as t

from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.errors import StageError
from runtime.stage.cuda_graphs import RecordedGraph
from tests.support.artifacts.stand_in_graphs import StandInDevice, stand_in_graphs
from tests.support.patience import PATIENCE

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}
PROMPTS, NEW = [[5] * 2, [7] * 11, [3] * 5], [22, 9, 17]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config: Any = t.LlamaConfig(**SIZES, **HEADS, eos_token_id=None, bos_token_id=None, pad_token_id=0)  # pyright: ignore[reportArgumentType]
    return t.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def wanted(model: Any) -> list[list[int]]:
    """What transformers writes behind each prompt."""
    found: list[list[int]] = []
    for prompt, new in zip(PROMPTS, NEW, strict=True):
        ids = torch.tensor([prompt])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)
        found.append(made[0, len(prompt) :].tolist())
    return found


@pytest.fixture(scope="module")
def device() -> Iterator[StandInDevice]:
    with stand_in_graphs(StandInDevice()) as device:
        yield device


@pytest.fixture(scope="module")
def pipe(model: Any, device: StandInDevice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    out = tmp_path_factory.mktemp("decoder") / "out"
    compile_model(model, out=out, stages=2, generate=True, max_length=40, sequences=3, page=4, size_limit=0.0)
    with Pipeline.load(out, processes=False) as pipe:
        yield pipe


def written(pipe: Pipeline) -> list[list[int]]:
    """What the pipeline writes behind all prompts at once."""
    texts = [pipe.start(p, max_new_tokens=new, temperature=0.0) for p, new in zip(PROMPTS, NEW, strict=True)]
    return [text.result(timeout=PATIENCE) for text in texts]


def test_no_stage_has_a_thread_take_part(pipe: Pipeline, device: StandInDevice, wanted: list[list[int]]) -> None:
    for _ in range(3):
        assert written(pipe) == wanted  # all shapes are recorded
    before, sent = device.replays, pipe._stages.engine._sent
    assert written(pipe) == wanted
    assert pipe._stages.engine._sent - sent < 12
    assert device.replays - before > 2 * 18


def test_a_traced_batch_and_one_of_a_caller_go_between_the_steps(pipe: Pipeline, wanted: list[list[int]]) -> None:
    written(pipe)
    text = pipe.start(PROMPTS[0], max_new_tokens=NEW[0], temperature=0.0)
    with pipe.trace() as trace:
        assert written(pipe) == wanted
    assert text.result(timeout=PATIENCE) == wanted[0]
    assert len(trace.runs) > 18
    assert written(pipe) == wanted


def test_a_step_that_cannot_be_launched_is_computed_again(
    pipe: Pipeline, wanted: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(pipe)
    launch, numbers = RecordedGraph.launch, count(1)

    def failing(graph: RecordedGraph, tensors: Sequence[torch.Tensor], pack: Any) -> tuple[torch.Tensor, ...]:
        if next(numbers) in (4, 9):
            raise RuntimeError("no memory is left")
        return launch(graph, tensors, pack)

    monkeypatch.setattr(RecordedGraph, "launch", failing)
    assert written(pipe) == wanted
    monkeypatch.setattr(RecordedGraph, "launch", Mock(side_effect=RuntimeError("no memory is left")))
    with pytest.raises(StageError, match=r"stage 0 \(cpu\) raised RuntimeError: no memory is left"):
        written(pipe)
