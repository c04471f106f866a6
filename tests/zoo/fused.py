"""Attention over pages of the decoders of the zoo: how many are fused, and how far a fused step differs.

    python -m tests.zoo.fused [NAME …]

A step of several rows of different lengths, with six new tokens and with one, of pools that are full of random numbers.
Prints a line a decoder: fused attentions, those left, and the largest difference of the log probabilities.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch

from ir.analysis.interpret import interpret
from ir.analysis.programs import program_of
from ir.errors import CompileError
from ir.graph import Call, Graph
from ir.machine.cluster import Cluster
from ir.operators.facts import aten_name
from ir.paged.paged_operator import is_paged
from ir.sources import Source
from ir.sources.decoder.step import example_call
from passes.compilation.given import read_given
from passes.compilation.programs import captured
from passes.compilation.sizes.pools import Room, with_room
from passes.fusing.fuse_attention import FuseAttention
from passes.options.options import Options, OverPages
from tests.support.models.planning import machine
from tests.zoo.decoders import DECODERS
from tests.zoo.translators import TRANSLATORS

ENTRIES = {**DECODERS, **TRANSLATORS}
OPTIONS = Options(generate=True, max_length=48, sequences=3, page=4, stages=2)
DEVICES: Cluster = machine(2)


def step_of(name: str) -> tuple[Source, Graph]:
    """A decoder's step, with pools."""
    source = read_given(ENTRIES[name].model(), (), None, OPTIONS)
    graph, _ = captured(source, False)
    return source, with_room(graph, source.decoding, Room(3), DEVICES)


def call(graph: Graph, seq: int) -> list[torch.Tensor]:
    """The arguments of a step of three rows."""
    names = [v.name for v in graph.inputs]
    tables = {name: 4 for name in ("table", "window_table", "slots", "source_table") if name in names}
    given = example_call(3, seq, tables)
    given |= {"lengths": torch.tensor([3, 9, 5]), "counts": torch.tensor([seq, max(seq - 2, 1), max(seq // 2, 1)])}
    if "window_first" in given:
        given["window_first"] = torch.tensor([0, 4, 0])
    given |= {"source": torch.randint(3, 60, (3, 7)), "source_lengths": torch.tensor([7, 3, 5])}
    return [given[name] for name in names]


def attentions(graph: Graph) -> tuple[int, int]:
    """The numbers of attentions that are fused, and that are not: products with weights that softmax has made."""
    calls = [n for n in graph.nodes if isinstance(n, Call)]
    fused = sum(map(is_paged, calls))
    return fused, sum(aten_name(n.op) == "scaled_dot_product_attention" or _weighs(n, graph) for n in calls)


def _weighs(node: Call, graph: Graph) -> bool:
    if aten_name(node.op) not in ("matmul", "bmm"):
        return False
    made: Any = graph.producer.get(node.operands[0])
    while isinstance(made, Call) and aten_name(made.op) in ("to", "view", "reshape", "slice", "_unsafe_view"):
        made = graph.producer.get(made.operands[0])
    return isinstance(made, Call) and aten_name(made.op) in ("softmax", "_softmax")


def difference(source: Source, plain: Graph, fused: Graph) -> float:
    """The largest difference of a result of one of the programs."""
    model = source.model
    weights = {n: t.detach() for n, t in model.named_parameters(remove_duplicate=False)}
    weights |= dict(model.named_buffers(remove_duplicate=False))
    found = [0.0]
    for program in range(max(len(plain.programs), 1)):
        part = program_of(plain, program)
        torch.manual_seed(0)
        state = {s.name: torch.randn([int(d) for d in s.type.shape]).to(s.type.dtype) for s in plain.states}
        for seq in (6, 1):
            given = call(part, seq)
            one, two = (interpret(graph, given, weights, state, program).outputs for graph in (plain, fused))
            pairs = zip(one, two, strict=True)
            found += [(a - b).abs().max().item() for a, b in pairs if a.is_floating_point() and a.numel()]
    return max(found)


def line(name: str) -> str:
    """The line of a decoder."""
    try:
        source, plain = step_of(name)
    except CompileError as e:
        return f"{name:<20} refused: {' '.join(str(e).split())[:80]}"
    fused = FuseAttention(OverPages.paged).run(plain, DEVICES)
    done, left = attentions(fused)
    differs = f"differs by {difference(source, plain, fused):.1e}" if done else ""
    return f"{name:<20} {done:>3} fused, {left} not  {differs}"


def main() -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in sys.argv[1:] or sorted(ENTRIES):
        try:
            print(line(name), flush=True)
        except Exception as e:
            print(f"{name:<20} fails: {type(e).__name__}: {' '.join(str(e).split())[:80]}", flush=True)


if __name__ == "__main__":
    main()
