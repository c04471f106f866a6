"""Greedy tokens of decoders and encoder-decoders in stages, beside those of `model.generate`.

    python -m tests.zoo.generation [-j JOBS] [NAME …]

Texts of different lengths join and leave a running batch, pass the window of sliding layers, and are prefilled in
chunks; some have an image before them.  Prints a line a decoder.
"""

from __future__ import annotations

import argparse
import os
import warnings
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, TypeAlias
from unittest.mock import patch

import torch

from ir.errors import CompileError
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.generation import generator
from tests.zoo.decoders import DECODERS
from tests.zoo.entry import Inputs, ids
from tests.zoo.joint import JOINT
from tests.zoo.sound import SOUND
from tests.zoo.translators import TRANSLATORS

STAGES, NEW, CHUNK = 3, 14, 6
LENGTHS = (5, 2, 17, 9, 30)
BEHIND_IMAGES = (5, 2, 12)
ROOM = {"max_length": 48, "sequences": 3, "page": 4}
QUICK = {"progress": False, "size_limit": 0.0, "time_limit": 2.0}


SEEING = (
    *("aya_vision", "blip_2", "gemma3_vision", "git", "idefics3", "internvl", "llava", "mistral3", "paligemma"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "vipllava"),
)
ENTRIES = {**DECODERS, **TRANSLATORS, "whisper": SOUND["whisper"], **{name: JOINT[name] for name in SEEING}}

Prompt: TypeAlias = tuple[torch.Tensor, Inputs]  # ids, or a sound, and what stands before a text, by name


def prompts(name: str, model: Any) -> list[Prompt]:
    """Ids, with an image for some of a model that sees, or sounds for one that hears."""
    if name in SEEING:
        torch.manual_seed(1)
        made = [ENTRIES[name].inputs(1, n) for n in BEHIND_IMAGES]
        beside = [{k: v for k, v in one.items() if k not in ("input_ids", "attention_mask")} for one in made]
        return [(one["input_ids"][0], its) for one, its in zip(made, beside, strict=True)] + [(ids(1, 5)[0], {})]
    return [(prompt, {}) for prompt in _plain_prompts(model)]


def _plain_prompts(model: Any) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name != "input_ids":
        shape = ENTRIES["whisper"].inputs(1, 4)[model.main_input_name].shape[1:]
        return [torch.randn(shape, generator=generator) for _ in LENGTHS]
    return [torch.randint(3, 128, (n,), generator=generator) for n in LENGTHS]


@torch.no_grad()
def expected(model: Any, prompt: torch.Tensor, beside: Inputs) -> list[int]:
    """The tokens that transformers appends to a prompt, or to what a text begins with."""
    begins = int(model.main_input_name == "input_ids") if model.config.is_encoder_decoder else len(prompt)
    options = {"max_new_tokens": NEW, "do_sample": False, "use_cache": True, "pad_token_id": 0, "eos_token_id": None}
    if model.main_input_name == "input_ids":
        options["attention_mask"] = torch.ones_like(prompt)[None]
    return model.generate(prompt[None], **options, **beside)[0, begins:].tolist()


def found(name: str, model: Any, folder: Path) -> list[list[int]]:
    """The tokens that stages append to the prompts, all of which are in progress at once."""
    example = ENTRIES[name].inputs(1, 6) if name in SEEING else {}
    compile_model(model, kwargs=example, out=folder, stages=STAGES, generate=True, **ROOM, **QUICK)
    with patch.object(generator, "CHUNK", CHUNK), Pipeline.load(folder) as pipe:
        options = {"stream": True, "max_new_tokens": NEW, "temperature": 0.0}
        given = prompts(name, model)
        texts = [pipe.generate([p] if p.dim() == 1 else p[None], **options, **beside) for p, beside in given]
        return [[step.token for step in text] for text in texts]


def outcome(name: str) -> str:
    """`equal`, or what is wrong."""
    model: Any = ENTRIES[name].model()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    try:
        with TemporaryDirectory() as folder:
            got = found(name, model, Path(folder) / "out")
    except CompileError as e:
        return f"refused: {e}"
    for config in (model.config, model.config.get_text_config(decoder=True)):
        config.use_cache = True
    wanted = [expected(model, *prompt) for prompt in prompts(name, model)]
    if got == wanted:
        return "equal"
    return f"differs in {sum(a != b for a, b in zip(got, wanted, strict=True))} of {len(wanted)} texts"


def line(name: str) -> str:
    """The line of a decoder."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start = perf_counter()
    try:
        said = outcome(name)
    except Exception as e:
        said = f"fails: {type(e).__name__}: {e}"
    return f"{name:<20} {perf_counter() - start:6.1f} s  {said}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", metavar="NAME", nargs="*", choices=[*ENTRIES, []])
    options.add_argument("-j", "--jobs", metavar="N", type=int, default=1, help="processes at once")
    given = options.parse_args()
    with get_context("spawn").Pool(given.jobs, maxtasksperchild=1) as pool:
        for said in pool.imap_unordered(line, given.names or ENTRIES):
            print(said, flush=True)


if __name__ == "__main__":
    main()
