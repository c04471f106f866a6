"""The difference between a step's logits in a batch, in chunks, and those of a whole text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from ir.decoding import Together
from ir.errors import in_one_line

AGREES_WITHIN = 2e-3  # difference of logits relative to the largest one, in float32
_LENGTHS, _LONGEST_WINDOW = (3, 7, 12), 64

Tensors: TypeAlias = dict[str, Tensor]
"""Tensors of a module by name."""

Whole: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""From a text `[seq]`, and the source of an encoder-decoder, to the logits `[vocabulary]` behind it."""


@dataclass(frozen=True)
class Agreement:
    """A comparison of a decoder's step with the decoder itself, on random texts of several lengths."""

    step: nn.Module
    tables: Sequence[str]  # "table", "window_table", "slots"
    pools: Mapping[str, Tensor]  # by fully qualified name, of any number of pages or slots
    page: int
    window: int
    vocabulary: int
    together: Together = "any"
    chunk: int = 5  # tokens of a prompt in one step
    sources: Sequence[Tensor] = ()  # for an encoder, of the texts in turn: ids `[seq]`, or others, all of one shape
    states: int = 0  # of the encoder, where all sources have as many

    @torch.no_grad()
    def difference(self, weights: Tensors, whole: Whole | None = None) -> float:
        """The largest difference of logits, relative to the largest logit: of prompts, and one token later.

        `weights` are all parameters and buffers, by name.  `whole` returns the logits `[vocabulary]` behind a text;
        by default they are those of the step for the text alone and at once.
        """
        whole = whole or partial(self._alone, weights)
        rows = range(len(self._texts))
        state = {**weights, **self._empty_pools()}
        differences = [0.0]
        done = dict.fromkeys(rows, 0)
        while waiting := [i for i in rows if done[i] < len(self._texts[i])]:
            prompts = {i: len(self._texts[i]) - 1 for i in waiting}
            counts = {i: max(min(self.chunk, prompts[i] - done[i]), 1) for i in waiting}
            counts = {
                i: counts[i] for i in waiting if self._kind(i, counts, done) == self._kind(waiting[0], counts, done)
            }
            ids = {i: self._texts[i][done[i] : done[i] + count] for i, count in counts.items()}
            for i, logits in zip(counts, self._cached(done, ids, state), strict=True):
                done[i] += counts[i]
                if done[i] >= prompts[i]:
                    want = whole(self._texts[i][: done[i]], self._source(i))
                    differences.append(float((logits - want).abs().max() / want.abs().max()))
        return max(differences)

    def _kind(self, text: int, counts: Mapping[int, int], done: Mapping[int, int]) -> Any:
        """A property that texts of one step have in common."""
        match self.together:
            case "any":
                return 0
            case "even":
                return counts[text], bool(self.sources) and not done[text]
            case "equal":
                return counts[text], done[text]
            case "alone":
                return text

    @cached_property
    def _texts(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        lengths = [*_LENGTHS, *([self.window + 3] if 0 < self.window <= _LONGEST_WINDOW else [])]
        if self.together != "any":
            lengths += lengths[-1:]  # so that two share steps
        low = min(3, self.vocabulary - 1)
        if self.sources:
            lengths = [lengths[i % len(lengths)] for i in range(len(self.sources))]
        return [torch.randint(low, self.vocabulary, (n + 1,), generator=generator) for n in lengths]

    @property
    def _pages_each(self) -> int:
        return -(-max(map(len, self._texts)) // self.page)

    @property
    def _pages(self) -> int:
        return 1 + len(self._texts) * max(self._pages_each, self._source_pages)

    def _empty_pools(self) -> dict[str, Tensor]:
        return {name: pool.new_zeros(self._pages, *pool.shape[1:]) for name, pool in self.pools.items()}

    def _cached(self, done: Mapping[int, int], new: Mapping[int, Tensor], state: Tensors) -> Tensor:
        """Logits `[rows, vocabulary]` behind the `new` tokens of each row, which follow those that are `done`."""
        counts = torch.tensor([len(ids) for ids in new.values()])
        seq = int(counts.max())
        ids = torch.stack([torch.cat([ids.new_zeros(seq - len(ids)), ids]) for ids in new.values()])
        table = torch.stack([torch.arange(self._pages_each) + 1 + i * self._pages_each for i in new])
        tables = dict.fromkeys(self.tables, table)
        if "window_table" in tables:
            tables["window_first"] = torch.zeros_like(counts)
        if "slots" in tables:
            tables["slots"] = torch.tensor([i + 1 for i in new])
        if self.sources:
            tables |= self._sources(new, first=not any(done[i] for i in new))
        given = (ids, torch.tensor([done[i] for i in new]), counts, tables)
        return step_logits(self.step, state, given)

    def _source(self, text: int) -> Tensor | None:
        return self.sources[text % len(self.sources)] if self.sources else None

    def _sources(self, texts: Iterable[int], first: bool) -> Tensors:
        """The inputs of a step that are of the sources of these texts, which it reads if it is their `first`."""
        given = [self.sources[i] for i in texts]
        pages = self._source_pages
        made = {
            "source_lengths": torch.tensor([self.states or len(one) for one in given]),
            "source_table": torch.stack([torch.arange(pages) + 1 + i * pages for i in texts]),
        }
        whole = torch.stack(given) if self.states else pad_sequence(given, batch_first=True)
        return {**made, "source": whole} if first else made

    @property
    def _source_pages(self) -> int:
        return -(-max((self.states or len(one) for one in self.sources), default=0) // self.page)

    def _alone(self, weights: Tensors, text: Tensor, _: Any) -> Tensor:
        return self._cached({0: 0}, {0: text}, {**weights, **self._empty_pools()})[0]


def disagreement(difference: Callable[[], float]) -> str:
    """The reason for which a step cannot be used, of whose logits this is the difference; empty where it can."""
    try:
        found = difference()
    except Exception as e:  # of the model's own code, which has other ideas of a cache
        return f"its code fails ({in_one_line(e)})"
    return "" if found <= AGREES_WITHIN else f"its logits with a cache differ by {found:.1%} from those without"


def step_logits(step: nn.Module, state: Tensors, given: tuple[Any, ...]) -> Tensor:
    """The logits `[rows, vocabulary]` of a step with these weights and pools, which it changes."""
    return functional_call(_Logits(step), {f"step.{name}": t for name, t in state.items()}, given)


class _Logits(nn.Module):
    """The logits of a step as a module of its own."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.step = step

    def forward(self, *given: Any) -> Tensor:
        return self.step.logits(*given)


def uncached(model: Any, weights: Tensors) -> Whole:
    """The logits of a transformers model without a cache, computed once for each text and source."""
    known: dict[tuple[int, ...], Tensor] = {}

    def logits(text: Tensor, source: Tensor | None) -> Tensor:
        key = (*text.tolist(), id(source))
        if key not in known:
            given = (
                {"input_ids": text} if source is None else {"decoder_input_ids": text, model.main_input_name: source}
            )
            given = {name: tensor[None] for name, tensor in given.items()}
            returned: Any = functional_call(model, weights, (), {**given, "use_cache": False})
            known[key] = returned.logits[0, -1]
        return known[key]

    return logits


@torch.no_grad()
def generates_by_logits(model: Any, weights: Tensors, new: int = 4) -> bool:
    """Whether `model.generate` writes by the logits that forward returns for the text alone.

    Where `generate` cannot be run with these weights, or drops elements at random as it is in training mode, that is
    not known, and taken to be so.
    """
    if any(module.training for module in model.modules()):
        return True
    whole = uncached(model, weights)
    text = torch.randint(3, 8, (5,), generator=torch.Generator().manual_seed(0))
    try:
        found = functional_call(_Generating(model), {f"model.{n}": t for n, t in weights.items()}, (text[None], new))
    except Exception:  # of the model's own code
        return True
    wanted = [whole(found.sequences[0, : len(text) + i], None) for i in range(len(found.logits))]
    differences = [
        (got[0] - want).abs().max() / want.abs().max() for got, want in zip(found.logits, wanted, strict=True)
    ]
    return all(float(difference) <= AGREES_WITHIN for difference in differences)


class _Generating(nn.Module):
    """Greedy generation by a transformers model as a module of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor, new: int) -> Any:
        greedy = {"do_sample": False, "num_beams": 1, "use_cache": False, "repetition_penalty": 1.0}
        told = {"return_dict_in_generate": True, "output_logits": True}
        return self.model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=new, **greedy, **told)


def random_weights(model: nn.Module) -> dict[str, Tensor]:
    """Float32 values for all parameters, for which every layer counts, and the buffers as they are; ties stay ties."""
    generator = torch.Generator().manual_seed(0)
    made: dict[int, Tensor] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for param in named.values():
        if id(param) not in made:
            noise = torch.randn(param.shape, generator=generator)
            made[id(param)] = 1 + 0.1 * noise if param.dim() < 2 else noise * max(param.shape[1:]) ** -0.5
    wide = {name: b.float() if b.is_floating_point() else b for name, b in model.named_buffers()}
    return {**wide, **{name: made[id(param)] for name, param in named.items()}}
