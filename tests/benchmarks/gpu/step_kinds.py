"""What becomes of each kind of a decoder's steps: `python3 -m tests.benchmarks.gpu.step_kinds [KIND ...] [--compile]`.

The decoders of `tests.benchmarks.gpu.quantized` continue one text, then several.  For each shape of a step it prints
how often it ran kernel by kernel, was recorded as a graph, and was replayed, by a stage's thread or by the one that
orders steps; how much was compiled meanwhile; and the time of the host's CPU that a step takes beside the one that
passes: where they are equal, steps may wait for the host.  Both count all threads, those of the device's driver too.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.utils import counters

from runtime import Pipeline
from runtime.stage.cuda_graphs import RecordedGraph
from runtime.stage.recurring_shapes import RecurringShapes
from runtime.stage.stage import shape_key
from tests.benchmarks.gpu import quantized, tokens

ROWS = (1, 1, 1, 4, 4)
NEW = 96

Ways = defaultdict[str, Counter[str]]
"""By the shape of a step, how often it went which way."""


@contextmanager
def watched() -> Iterator[Ways]:
    """A block in which the ways of all steps are counted."""
    ways: Ways = defaultdict(Counter)
    call = RecurringShapes.__call__

    def counting(stage: RecurringShapes, *tensors: Any, **sizes: int) -> Any:
        key = shape_key(tensors, sizes)
        before = key in stage._used
        made = call(stage, *tensors, **sizes)
        way = "replayed" if before else "recorded" if key in stage._used else "kernel by kernel"
        ways[shapes_text(shape for shape, _ in key[0])][way + " (given up)" * stage._gave_up] += 1
        return made

    launch = RecordedGraph.launch

    def launching(graph: RecordedGraph, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        ways[shapes_text(tensor.shape for tensor in graph.inputs)]["launched by the thread that orders steps"] += 1
        return launch(graph, tensors)

    with patch.object(RecurringShapes, "__call__", counting), patch.object(RecordedGraph, "launch", launching):
        yield ways


def shapes_text(shapes: Iterable[torch.Size]) -> str:
    """The distinct shapes of the inputs of a step."""
    return " ".join(dict.fromkeys("x".join(map(str, shape)) for shape in shapes))


def written(pipe: Pipeline, rows: int, seed: int) -> str:
    """Continue so many texts of 1,000 tokens; what a step took behind the first tokens."""
    compiled, begun = counters["stats"]["unique_graphs"], []
    for i in range(rows):
        begun.append(pipe.start(tokens.prompt(1000, seed + i), max_new_tokens=NEW))
    for one in begun:
        next(iter(one))
    first, cpu, wall = len(begun[0].steps), time.process_time(), time.perf_counter()
    begun[0].result()
    steps = NEW - first
    cpu, wall = (time.process_time() - cpu) / steps * 1e3, (time.perf_counter() - wall) / steps * 1e3
    for one in begun:
        one.result()
    new = counters["stats"]["unique_graphs"] - compiled
    return f"  {rows} texts: {wall:.2f} ms a step, {cpu:.2f} ms of the host's CPU; {new} compilations"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.gpu.step_kinds")
    parser.add_argument("kinds", nargs="*", default=["bfloat16", "w4a16", "fp8"], choices=quantized.KINDS)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--compile", action="store_true", help="have torch.compile make the stages faster")
    given = parser.parse_args()
    for kind in given.kinds:
        folder = quantized.compiled(kind, given.layers)
        with warnings.catch_warnings(), watched() as ways:
            warnings.simplefilter("ignore")
            with Pipeline.load(folder, processes=False, compile=given.compile) as pipe:
                print(f"{kind}, {given.layers} layers", flush=True)
                for i, rows in enumerate(ROWS):
                    print(written(pipe, rows, 1000 * i), flush=True)
        for shapes, counted in sorted(ways.items()):
            print(f"  {shapes}: {', '.join(f'{n} {way}' for way, n in counted.items())}", flush=True)


if __name__ == "__main__":
    main()
