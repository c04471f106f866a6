"""The pools of a decoder: how many pages they have, and how many texts fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import sympy

from ir.analysis.memory import stored_bytes
from ir.analysis.pools import page_bytes, slot_bytes, source_page_bytes, with_pools
from ir.analysis.programs import program_of
from ir.decoding import MEDIA, Decoding
from ir.errors import CompileError, PlanError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.sizes import hold
from ir.text.units import format_bytes
from passes.compilation.sizes.pool_sizes import STEP_TOKENS, decoding_for, pages_of, source_pages_of, window_pages_of
from passes.options.sizes import WantedCall

_SEQUENCES = 32  # texts that there is room for where nobody says how many
_BATCH = 8  # texts that get a token in a usual step
_USABLE = 0.9  # of the memory of all devices, for weights and pools together: the rest is for activations
_FILLED = 0.8  # of accelerators, whose memory the pools fill where nobody says their size: CUDA graphs take some, too


@dataclass(frozen=True)
class Room:
    """The room that is asked for: for texts of the greatest length, or for so many tokens; None: as much as fits."""

    sequences: int | None = None
    tokens: int | None = None

    def texts(self, max_length: int) -> int:
        """The texts of greatest length that have room."""
        if self.tokens is not None:
            return max(self.tokens // max_length, 1)
        return self.sequences or _SEQUENCES


def with_room(graph: Graph, decoding: Decoding, room: Room, machine: Cluster) -> Graph:
    """The graph of a decoder's step with pools of the size that is asked for, or of what the machine has room for.

    On accelerators that is for the cut to say, see `with_largest_room`.  Raises PlanError where not one text of the
    greatest length fits, and CompileError for what is less than one.
    """
    require_one_text(room.tokens, decoding.max_length)
    decoding = replace(decoding, chunk=_chunk(graph, decoding))
    texts = room.texts(decoding.max_length)
    made = with_pools(graph, decoding_for(decoding, texts, room.tokens))
    if room.sequences is not None or room.tokens is not None:
        return made
    most = _most_texts(made, machine, _USABLE)
    if most < 1:
        raise PlanError(
            f"no text of {decoding.max_length:,} tokens fits beside the weights; lower --max-length, or add devices"
        )
    if machine.devices and all(device.name.partition(":")[0] != "cpu" for device in machine.devices):
        filled = max(_most_texts(made, machine, _FILLED), 1)
        return replace(made, decoding=replace(made.decoding, most_texts=filled))
    if most >= texts:
        return made
    return with_pools(graph, decoding_for(decoding, most))


def require_one_text(tokens: int | None, max_length: int | None) -> None:
    """Raises CompileError for room for fewer tokens than a text of the greatest length has, if both are known."""
    if tokens is not None and max_length is not None and tokens < max_length:
        raise CompileError(f"--tokens {tokens} is less than one text of --max-length {max_length}")


def _chunk(graph: Graph, decoding: Decoding) -> int:
    """The new tokens of a text that a step takes at most; 0: any number.  Raises CompileError where one is too few."""
    programs = [program_of(graph, i) for i in range(max(len(graph.programs), 1))]
    parts = [part for part in programs if not any(v.name.startswith(MEDIA) for v in part.inputs)]  # takes whole prompts
    takes = [_tokens_taken(part) for part in parts]
    low = {str(s): least for part in parts for s, (least, _) in part.ranges.items() if s not in _token_sizes(part)}
    for name, least in (low | {"seq": min(taken.start for taken in takes)}).items():
        if least > 1:
            raise CompileError(f"the model's code asks for {name} of {least} or more, and texts grow token by token")
    most = max(len(taken) + taken.start - 1 for taken in takes)
    if not decoding.cached and most < min(STEP_TOKENS, decoding.max_length):
        raise CompileError(f"without a cache the model's code takes {most} tokens at most; say --max-length {most}")
    return decoding.chunk if most >= STEP_TOKENS else most


def _token_sizes(graph: Graph) -> list[Any]:
    """The numbers of new tokens, and of those of a source."""
    return [v.type.shape[1] for name in ("input_ids", "source") for v in graph.inputs if v.name == name]


def _tokens_taken(graph: Graph) -> range:
    """The numbers of new tokens that a program takes, up to those of a chunk."""
    seq = _token_sizes(graph)[0]
    if not isinstance(seq, sympy.Symbol):
        return range(int(seq), int(seq) + 1)
    guards = [guard for guard in graph.guards if guard.free_symbols == {seq}]
    low, high = graph.ranges[seq]
    most = min(high or STEP_TOKENS, STEP_TOKENS)
    return range(low, next((n for n in range(low, most + 1) if not hold(guards, {seq: n})), most + 1))


def usual_steps(graph: Graph) -> tuple[WantedCall, ...]:
    """The steps that a decoder is cut for by default: mostly a token of several texts, at times a chunk of a prompt.

    Texts are half as long as they may be.
    """
    decoding = graph.decoding
    half = max(pages_of(decoding) // 2, 1)
    named = {"pages": half, "window_pages": min(half, window_pages_of(decoding))}
    pages = {str(symbol): named[str(symbol)] for symbol in graph.hints if str(symbol) in named}
    chunk = max(min(decoding.chunk or STEP_TOKENS, STEP_TOKENS, decoding.max_length // 2), 1)
    if not decoding.cached:
        return (WantedCall(_known(graph, {"batch": _BATCH, "seq": decoding.max_length // 2})),)
    media = _sizes_of_media(graph)
    if graph.programs and not media:  # which have their shares
        tokens = _fitting(graph, "source_tokens", decoding.source // 2)
        source = {"source_tokens": tokens, "source_pages": max(source_pages_of(decoding) // 2, 1)}
        seq = {"seq": max(chunk // _BATCH, 2)}
        return (WantedCall(_known(graph, {"batch": _BATCH, **seq, **pages, **source})),)
    decode, prefill = {"batch": _BATCH, "seq": 1, **pages}, {"batch": 1, "seq": chunk, **pages}
    return WantedCall(_known(graph, decode) | media, 9.0), WantedCall(_known(graph, prefill) | media, 1.0)


def _fitting(graph: Graph, name: str, most: int) -> int:
    """The largest value up to `most` at which the conditions on one size hold; `most` where there is none."""
    symbol = next((s for s in graph.hints if str(s) == name), None)
    guards = [guard for guard in graph.guards if guard.free_symbols == {symbol}]
    return next((n for n in range(most, 0, -1) if hold(guards, {symbol: n})), most) if symbol is not None else most


def _sizes_of_media(graph: Graph) -> dict[str, int]:
    """The sizes of the program that reads media: those of its example, whose media take some tokens."""
    reads = [p for p in graph.programs if any(v.name.startswith(MEDIA) for v in p.inputs)]
    return {
        str(symbol): graph.hints[symbol] for program in reads for symbol in program.symbols if symbol in graph.hints
    }


def _known(graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of the sizes that the graph has."""
    return {name: size for name, size in sizes.items() if name in map(str, graph.hints)}


def _most_texts(graph: Graph, machine: Cluster, share: float) -> int:
    """The texts that fit beside the weights, in a `share` of the memory of all devices together."""
    memory = sum(device.memory for device in machine.devices)
    if not machine.devices or not isfinite(memory):
        return _SEQUENCES
    whole, sliding = page_bytes(graph)
    each = whole * pages_of(graph.decoding) + sliding * window_pages_of(graph.decoding) + slot_bytes(graph)
    each += source_page_bytes(graph) * source_pages_of(graph.decoding)
    weights = stored_bytes((*graph.params, *graph.constants))
    return int((share * memory - weights) // each) if each else _SEQUENCES


def room_line(graph: Graph) -> str:
    """`room for 212,992 tokens: 52 texts of 4096`, and the bytes of the pools; empty for what is no decoder."""
    decoding = graph.decoding
    if not decoding.page:
        return ""
    by_kind = [(decoding.pages, pages_of(decoding)), (decoding.window_pages, window_pages_of(decoding))]
    by_kind += [(decoding.slots, 1), (decoding.source_pages, source_pages_of(decoding))]
    texts = min((have - 1) // each for have, each in by_kind if have)
    tokens = (decoding.pages - 1) * decoding.page
    nbytes = stored_bytes(state for state in graph.states if state.zeros)
    return f"room for {tokens:,} tokens: {texts} texts of {decoding.max_length} ({format_bytes(nbytes)} of pools)"
