"""Greedy tokens of decoders and encoder-decoders in stages, beside those of `model.generate`.

    python -m tests.zoo.generation [NAME …]

Texts of different lengths join and leave a running batch, pass the window of sliding layers, and are prefilled in
chunks.  Prints a line a decoder.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch

from ir.errors import CompileError
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.generation import generator
from tests.zoo.decoders import DECODERS
from tests.zoo.sound import SOUND
from tests.zoo.translators import TRANSLATORS

STAGES, NEW, CHUNK = 3, 14, 6
LENGTHS = (5, 2, 17, 9, 30)
ROOM = {"max_length": 48, "sequences": 3, "page": 4}
QUICK = {"progress": False, "size_limit": 0.0, "time_limit": 2.0}


ENTRIES = {**DECODERS, **TRANSLATORS, "whisper": SOUND["whisper"]}


def prompts(model: Any) -> list[torch.Tensor]:
    """Ids, or sounds for a model that hears."""
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name != "input_ids":
        shape = ENTRIES["whisper"].inputs(1, 4)[model.main_input_name].shape[1:]
        return [torch.randn(shape, generator=generator) for _ in LENGTHS]
    return [torch.randint(3, 128, (n,), generator=generator) for n in LENGTHS]


@torch.no_grad()
def expected(model: Any, prompt: torch.Tensor) -> list[int]:
    """The tokens that transformers appends to a prompt, or to what a text begins with."""
    begins = int(model.main_input_name == "input_ids") if model.config.is_encoder_decoder else len(prompt)
    options = {"max_new_tokens": NEW, "do_sample": False, "use_cache": True, "pad_token_id": 0, "eos_token_id": None}
    if model.main_input_name == "input_ids":
        options["attention_mask"] = torch.ones_like(prompt)[None]
    return model.generate(prompt[None], **options)[0, begins:].tolist()


def found(model: Any, folder: Path) -> list[list[int]]:
    """The tokens that stages append to the prompts, all of which are in progress at once."""
    compile_model(model, out=folder, stages=STAGES, generate=True, **ROOM, **QUICK)
    with patch.object(generator, "CHUNK", CHUNK), Pipeline.load(folder) as pipe:
        options = {"stream": True, "max_new_tokens": NEW, "temperature": 0.0}
        texts = [pipe.generate([p] if p.dim() == 1 else p[None], **options) for p in prompts(model)]
        return [[step.token for step in text] for text in texts]


def outcome(name: str) -> str:
    """`equal`, or what is wrong."""
    model: Any = ENTRIES[name].model()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    try:
        with TemporaryDirectory() as folder:
            got = found(model, Path(folder) / "out")
    except CompileError as e:
        return f"refused: {e}"
    for config in (model.config, model.config.get_text_config(decoder=True)):
        config.use_cache = True
    wanted = [expected(model, prompt) for prompt in prompts(model)]
    if got == wanted:
        return "equal"
    return f"differs in {sum(a != b for a, b in zip(got, wanted, strict=True))} of {len(wanted)} texts"


def main(names: list[str]) -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.simplefilter("ignore")
    for name in names or ENTRIES:
        start = perf_counter()
        try:
            said = outcome(name)
        except Exception as e:
            said = f"fails: {type(e).__name__}: {e}"
        print(f"{name:<20} {perf_counter() - start:6.1f} s  {said}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
