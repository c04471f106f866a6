"""Models of the zoo with more layers, exported with layers alike recorded once a kind, beside their full exports.

python -m tests.zoo.repeats                 all of them
python -m tests.zoo.repeats 'qwen*' bert    some of them
python -m tests.zoo.repeats --generate      the steps of those that continue texts, each program of them
python -m tests.zoo.repeats --resume        those that build/repeats.txt has no outcome of, as after an interrupt
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers as t

from ir.capture.export.recording import ONE_BY_ONE
from ir.capture.repeats.alike import alike_modules
from ir.sources.decoder.made import step_of
from ir.sources.source import Source
from tests.support.models.repeats import NEVER, differences, exported
from tests.zoo import MODELS
from tests.zoo.entry import Entry
from tests.zoo.generation import ENTRIES, SEEING
from tests.zoo.measure import EXAMPLE

LAYERS = 8
FEWEST = 4  # layers alike that are recorded once a kind
_NUMBERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks", "encoder_layers", "decoder_layers"),
    *("num_decoder_layers", "encoder_num_hidden_layers", "decoder_num_hidden_layers"),
)
DIFFERENT, LEFT_OUT = "DIFFERENT", "left out"
NOTHING = "no layers alike"
_STAGES = ("depths", "stage_num_blocks")  # layers in each part of a pyramid


def deepened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a configuration with more layers, in configurations inside it, too; lists for each layer go on."""
    old = {value for name, value in options.items() if name in _NUMBERS and isinstance(value, int)}
    return {name: _deepened(name, value, old) for name, value in options.items()}


def _deepened(name: str, value: Any, old: Collection[int]) -> Any:
    match value:
        case int() if name in _NUMBERS:
            return LAYERS
        case dict():
            return deepened(value)
        case list() if name in _STAGES:
            return [*value[:-1], LAYERS]
        case [[[*kinds], int()]]:  # gpt_neo's
            return [[kinds, LAYERS // len(kinds)]]
        case list() if len(value) in old:
            return [value[i % len(value)] for i in range(LAYERS)]
    return value


@contextmanager
def _deep(change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Give configurations more layers inside the context."""
    make: Any = t.AutoConfig.for_model
    with patch.object(t.AutoConfig, "for_model", lambda kind, **options: make(kind, **change(options))):
        yield


def _model(entry: Entry) -> torch.nn.Module:
    """The model with more layers, or as it is where it cannot have more."""
    try:
        with _deep(deepened):
            return entry.model()
    except Exception:  # of configurations in which something else counts layers
        return entry.model()


def compared(name: str) -> tuple[str, str]:
    """The name, and what came of it: "as in full, 3 left out", "in full" and why, or what differs."""
    torch.set_num_threads(1)
    entry = MODELS[name]
    try:
        inputs, shapes = entry.inputs(*EXAMPLE), {key: dict(dims) for key, dims in entry.dynamic.items()}
        model = _model(entry)
        return name, _outcome(model, inputs, shapes, soft=True) if alike_modules(model, FEWEST) else NOTHING
    except Exception as e:  # models that no export takes
        return name, _failed(e)


def compared_steps(name: str) -> tuple[str, str]:
    """The same for the programs of a decoder's step."""
    torch.set_num_threads(1)
    entry = ENTRIES[name]
    try:
        given = entry.inputs(1, 6) if name in SEEING else {}
        step = step_of(Source(name, _model(entry), (), given, None, {}), max_length=48, page=4)
        calls = [(step.program, step.kwargs, step.dynamic_shapes, step.fix)]
        calls += [(call.name, call.kwargs, call.dynamic_shapes, call.fix) for call in step.variants]
        found = [(program, _outcome(step.model, *call)) for program, *call in calls]
        return name, "; ".join(f"{program}: {outcome}" for program, outcome in found)
    except Exception as e:
        return name, _failed(e)


def _outcome(model: torch.nn.Module, inputs: Any, shapes: Any, fix: Any = (), soft: bool = False) -> str:
    once, full = (exported(model, (), inputs, shapes, fewest=n, soft=soft, fix=fix) for n in (FEWEST, NEVER))
    if found := differences(once.graph, full.graph):
        return f"{DIFFERENT} {', '.join(found)}"
    if not once.left_out:
        return f"in full {'; '.join(note for note in once.graph.notes if ONE_BY_ONE in note)}".rstrip()
    why = "; ".join(note for note in once.graph.notes if note not in full.graph.notes)
    return f"as in full, {once.left_out} {LEFT_OUT} {why}".rstrip()


def _failed(e: Exception) -> str:
    return f"not exported: {type(e).__name__}: {e}".partition("\n")[0][:200]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.repeats", description="Export layers once a kind.")
    parser.add_argument("names", nargs="*", help="models, or patterns of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--generate", action="store_true", help="the steps that continue texts")
    parser.add_argument("--resume", action="store_true", help="keep the outcomes of an earlier run")
    options = parser.parse_args()
    models, compare = (ENTRIES, compared_steps) if options.generate else (MODELS, compared)
    names = [n for n in models if not options.names or any(fnmatch(n, pattern) for pattern in options.names)]
    log = Path("build", "repeats-generate.txt" if options.generate else "repeats.txt")
    log.parent.mkdir(exist_ok=True)
    outcomes = _read(log) if options.resume else {}
    todo = [name for name in names if name not in outcomes]
    with (
        multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=8) as pool,
        log.open("a" if options.resume else "w") as file,
    ):
        for i, (name, outcome) in enumerate(pool.imap_unordered(compare, todo)):
            print(f"{i + 1:4}/{len(todo)}  {name:24} {outcome}", flush=True)
            print(f"{name} {outcome.splitlines()[0]}", file=file, flush=True)
            outcomes[name] = outcome
    found = [outcomes[name] for name in names]
    once, different = (sum(word in outcome for outcome in found) for word in (LEFT_OUT, DIFFERENT))
    print(f"{once} of {len(found)} have layers recorded once; {different} differ from their full exports: see {log}")
    return 1 if different else 0


def _read(log: Path) -> dict[str, str]:
    """The outcomes of an earlier run by name."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {name: outcome for name, _, outcome in (line.partition(" ") for line in lines)}


if __name__ == "__main__":
    sys.exit(main())
