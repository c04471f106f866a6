"""The tensors of a batch, made from the texts in it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from runtime.generation.outputs import LatestToken, StepOutputs
from runtime.generation.scheduling.pages import TRASH
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.manifest.manifest import Generation


@dataclass(frozen=True)
class TextBatch:
    """Texts that are in the stages at once, and how many of its next tokens each brings."""

    texts: tuple[TextInProgress, ...]
    counts: tuple[int, ...]

    def inputs(self, takes: Collection[str], generation: Generation) -> dict[str, torch.Tensor]:
        """The inputs of a decoder that `takes` some of all there are; see docs/generation.md."""
        made = {name: make(self, generation) for name, make in _MAKE.items() if name in takes}
        made |= self.marks() if "marked" in takes else {}
        if (media := self.texts[0].media) is None or not self.texts[0].looks:
            return made
        longer = {name: pad(made[name], (0, 1), value=TRASH) for name in ("table", "window_table") if name in made}
        return {**made, **longer, **media.given}

    @property
    def follows(self) -> StepOutputs | None:
        """The step that wrote the new token of each text, its last, in the text's row, if there is one."""
        step = self.texts[0].step
        for row, text in enumerate(self.texts):
            if text.step is not step or text.row != row or text.written > text.length + 1:
                return None
        return step

    def last_tokens(self) -> list[LatestToken]:
        """The last token of each text."""
        return [LatestToken(0, t.step, t.row) if t.unread else LatestToken(t.tokens[-1]) for t in self.texts]

    def ids(self) -> torch.Tensor:
        """The new tokens, padded on the left."""
        seq = max(self.counts)
        news = [t.tokens[t.length : t.length + n] for t, n in zip(self.texts, self.counts, strict=True)]
        return _integers(chain.from_iterable([0] * (seq - len(new)) + new for new in news)).view(-1, seq)

    def sources(self) -> torch.Tensor:
        """The sources, those of ids padded on the right."""
        return pad_sequence([text.source.given for text in self.texts if text.source], batch_first=True)

    def ranks(self, vocabulary: int) -> torch.Tensor:
        """As many ranks as the most tokens that a text draws from, rounded up, so that few numbers of them occur."""
        most = max(text.options.sampling.drawn_from(vocabulary) for text in self.texts)
        return torch.arange(min(power_of_two(most), vocabulary))

    def marks(self) -> dict[str, torch.Tensor]:
        """The tokens of each text whose logits change, and how; the last one again up to as many as others have."""
        if all(text.options.changes_nothing for text in self.texts):
            count = len(self.texts)
            return {"marked": _integers([0] * count).view(-1, 1), "changes": _floats([1.0, 0.0] * count).view(-1, 2, 1)}
        rows = [text.marks() for text in self.texts]
        width = power_of_two(max(map(len, rows)))
        filled = [[*row, *[row[-1]] * (width - len(row))] for row in rows]
        tokens, penalties, biases = ([mark[i] for row in filled for mark in row] for i in range(3))
        changes = torch.stack([_floats(penalties).view(-1, width), _floats(biases).view(-1, width)], 1)
        return {"marked": _integers(map(int, tokens)).view(-1, width), "changes": changes}

    def sampling(self) -> torch.Tensor:
        """float32[rows, 4]: temperature, top_k, top_p and min_p."""
        return _floats(chain.from_iterable([text.options.sampling.numbers for text in self.texts])).view(-1, 4)


_MAKE: dict[str, Callable[[TextBatch, Generation], torch.Tensor]] = {
    "input_ids": lambda batch, _: batch.ids(),
    "lengths": lambda batch, _: _integers([text.length for text in batch.texts]),
    "counts": lambda batch, _: _integers(batch.counts),
    "table": lambda batch, _: _table([text.pages for text in batch.texts]),
    "window_table": lambda batch, _: _table([text.window_pages for text in batch.texts]),
    "window_first": lambda batch, of: _integers([text.left * of.page for text in batch.texts]),
    "shifts": lambda batch, _: _integers([text.media.shift if text.media else 0 for text in batch.texts]),
    "adapter": lambda batch, _: _integers([text.options.adapter for text in batch.texts]),
    "slots": lambda batch, _: _integers([text.slot for text in batch.texts]),
    "source": lambda batch, _: batch.sources(),
    "source_lengths": lambda batch, _: torch.tensor([text.source.states for text in batch.texts if text.source]),
    "source_table": lambda batch, _: _table([text.source_pages for text in batch.texts]),
    "sampling": lambda batch, _: batch.sampling(),
    "seeds": lambda batch, _: _integers([text.options.sampling.seed for text in batch.texts]),
    "ranks": lambda batch, of: batch.ranks(of.vocabulary),
}


def power_of_two(count: int) -> int:
    """The power of two from there on."""
    return 1 << (count - 1).bit_length()


def _table(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """[rows, pages] of whole numbers, `TRASH` behind the last page of a row."""
    width = max(1, *map(len, rows))
    pages = list[int]()
    for row in rows:
        pages += row
        if len(row) < width:
            pages += [TRASH] * (width - len(row))
    return _integers(pages).view(-1, width)


def _integers(values: Iterable[int]) -> torch.Tensor:
    """int64[values], in a fifth of torch.tensor's time."""
    return torch.frombuffer(array("q", values), dtype=torch.int64)


def _floats(values: Iterable[float]) -> torch.Tensor:
    """float32[values]."""
    return torch.frombuffer(array("f", values), dtype=torch.float32)
