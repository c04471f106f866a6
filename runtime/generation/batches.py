"""The tensors of a batch, made from the texts in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from runtime.generation.pages import TRASH
from runtime.generation.sequences import TextInProgress


@dataclass(frozen=True)
class TextBatch:
    """Texts that are in the stages at once, and how many of its next tokens each brings."""

    texts: tuple[TextInProgress, ...]
    counts: tuple[int, ...]

    def inputs(self, takes: Collection[str], page: int) -> dict[str, torch.Tensor]:
        """The inputs of a decoder that `takes` some of all there are; see docs/generation.md."""
        seq = max(self.counts)
        news = [t.tokens[t.length : t.length + n] for t, n in zip(self.texts, self.counts, strict=True)]
        draws = [t.options.sampling for t in self.texts]
        made = {
            "input_ids": torch.tensor([[0] * (seq - len(new)) + new for new in news]),
            "lengths": torch.tensor([t.length for t in self.texts]),
            "counts": torch.tensor(self.counts),
            "table": _table([t.pages for t in self.texts]),
            "window_table": _table([t.window_pages for t in self.texts]),
            "window_first": torch.tensor([t.left * page for t in self.texts]),
            "temperature": torch.tensor([float(d.temperature) for d in draws]),
            "top_k": torch.tensor([d.top_k for d in draws]),
            "top_p": torch.tensor([float(d.top_p) for d in draws]),
            "min_p": torch.tensor([float(d.min_p) for d in draws]),
            "seeds": torch.tensor([d.seed for d in draws]),
        }
        return {name: made[name] for name in takes}


def _table(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """[rows, pages] of whole numbers, `TRASH` behind the last page of a row."""
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[TRASH] * (width - len(row))] for row in rows])
