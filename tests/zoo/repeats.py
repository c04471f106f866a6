"""Models of the zoo with more layers, exported with layers alike recorded once a kind, beside their full exports.

python -m tests.zoo.repeats                 all of them
python -m tests.zoo.repeats 'qwen*' bert    some of them
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any
from unittest.mock import patch

import torch
import transformers as t

from tests.support.repeats import NEVER, differences, exported
from tests.zoo import MODELS
from tests.zoo.entry import Entry
from tests.zoo.measure import EXAMPLE

LAYERS = 10
FEWEST = 4  # layers alike that are recorded once a kind
_NUMBERS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers", "decoder_layers", "num_decoder_layers")


@contextmanager
def _deep() -> Iterator[None]:
    """Give configurations more layers inside the context."""
    make: Any = t.AutoConfig.for_model

    def deeper(kind: str, **options: Any) -> Any:
        return make(kind, **options | {name: LAYERS for name in _NUMBERS if isinstance(options.get(name), int)})

    with patch.object(t.AutoConfig, "for_model", deeper):
        yield


def _model(entry: Entry) -> torch.nn.Module:
    """The model with more layers, or as it is where it cannot have more."""
    try:
        with _deep():
            return entry.model()
    except Exception:  # of configurations with something for each layer
        return entry.model()


def compared(name: str) -> tuple[str, str]:
    """The name, and what came of it: "as in full, 8 left out", "in full", or what differs."""
    torch.set_num_threads(1)
    entry = MODELS[name]
    try:
        model, inputs = _model(entry), entry.inputs(*EXAMPLE)
        shapes: Any = {key: dict(dims) for key, dims in entry.dynamic.items()}
        once = exported(model, (), inputs, shapes, fewest=FEWEST, soft=True)
        full = exported(model, (), inputs, shapes, fewest=NEVER, soft=True)
    except Exception as e:  # models that no export takes
        return name, f"not exported: {type(e).__name__}: {e}".partition("\n")[0][:200]
    if found := differences(once.graph, full.graph):
        return name, f"DIFFERENT {', '.join(found)}"
    why = "; ".join(note for note in once.graph.notes if note not in full.graph.notes)
    return name, f"as in full, {once.left_out} left out {why}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.repeats", description="Export layers once a kind.")
    parser.add_argument("names", nargs="*", help="models, or patterns of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    names = [n for n in MODELS if not options.names or any(fnmatch(n, pattern) for pattern in options.names)]
    failed = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=8) as pool:
        for i, (name, outcome) in enumerate(pool.imap_unordered(compared, names)):
            print(f"{i + 1:4}/{len(names)}  {name:24} {outcome}", flush=True)
            failed += outcome.startswith("DIFFERENT")
    print(f"{failed} of {len(names)} differ from their full exports")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
