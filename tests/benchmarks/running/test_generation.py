"""Texts that two stages continue on the CPU, beside transformers' `generate` with its static cache.

Both have all cores.

Ratios of the best of some turns, which take place side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import pytest
import torch
import transformers as t
from torch.nn.functional import pad

from passes.compilation.api import compile_model
from runtime import Pipeline

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NEW, TURNS = 48, 3
LENGTHS = (16, 48, 96, 192)
ASKED = 1.15, 1.3  # times transformers' for one text at most, times its rate for four at least


@pytest.fixture(scope="module")
def model() -> Any:
    """A Llama of 124 million parameters."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "vocab_size": 32000,
    }
    heads: dict[str, Any] = {"num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 512}
    model = t.LlamaForCausalLM(t.LlamaConfig(**sizes, **heads)).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def pipe(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    out = tmp_path_factory.mktemp("llama") / "out"
    compile_model(model, out=out, stages=2, generate=True, max_length=256, sequences=8, page=64)
    with Pipeline.load(out, processes=False) as pipe:
        yield pipe


def prompt(length: int, turn: int) -> torch.Tensor:
    """Another one each turn, or pages of its prefix would be known."""
    return torch.randint(3, 32000, (1, length), generator=torch.Generator().manual_seed(1000 * turn + length))


def beside(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What transformers continues."""
    static = {"cache_implementation": "static", "disable_compile": True, "pad_token_id": 0}
    return model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, **static)


def seconds(*runs: Callable[[int], object]) -> list[float]:
    """Those of the fastest of some turns, in which all take place one after the other."""
    best = [float("inf")] * len(runs)
    for turn in range(1, TURNS + 1):
        for i, run in enumerate(runs):
            start = perf_counter()
            run(turn)
            best[i] = min(best[i], perf_counter() - start)
    return best


def test_one_text(model: Any, pipe: Pipeline) -> None:
    def ours(turn: int) -> torch.Tensor:
        return pipe.generate(prompt(48, turn), max_new_tokens=NEW)

    def theirs(turn: int) -> torch.Tensor:
        return beside(model, prompt(48, turn), torch.ones(1, 48, dtype=torch.int64))

    assert torch.equal(ours(0), theirs(0))
    mine, other = seconds(ours, theirs)
    each = [1e3 * taken / NEW for taken in (mine, other)]
    print(
        f"\none text: {each[0]:.1f} ms a token, transformers {each[1]:.1f}: {mine / other:.2f} times (asked {ASKED[0]})"
    )


def test_four_texts_of_different_lengths(model: Any, pipe: Pipeline) -> None:
    """Against the batch of all four, padded to the longest one."""
    width = max(LENGTHS)

    def ours(turn: int) -> list[list[int]]:
        return pipe.generate([prompt(n, turn)[0].tolist() for n in LENGTHS], max_new_tokens=NEW)

    def theirs(turn: int) -> list[list[int]]:
        ids = torch.cat([pad(prompt(n, turn), (width - n, 0)) for n in LENGTHS])
        mask = torch.stack([torch.arange(width) >= width - n for n in LENGTHS]).long()
        return beside(model, ids, mask)[:, width:].tolist()

    assert ours(0) == theirs(0)
    mine, other = seconds(ours, theirs)
    rates = [len(LENGTHS) * NEW / taken for taken in (mine, other)]
    mine_said, other_said = (f"{rate:.1f}" for rate in rates)
    ratio = f"{other / mine:.2f} times (asked {ASKED[1]})"
    print(f"\nfour texts: {mine_said} tokens a second, transformers {other_said}: {ratio}")
