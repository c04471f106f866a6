"""Images and sounds before a text: what a model's forward takes beside ids, in the first step of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import pad

from ir.errors import SourceError
from ir.objects.signature import forward_parameters
from ir.sources.decoder.agreement import Tensors, step_logits
from ir.sources.example_inputs import make_example
from ir.sources.image_tokens import image_token_id
from ir.sources.source import Source

TEXT = ("input_ids", "attention_mask", "position_ids")  # inputs of a text alone


@dataclass(frozen=True)
class Media:
    """The prompt of one text with the inputs that stand before it."""

    ids: Tensor  # int64[1, seq], with a token in each place of an image
    inputs: Mapping[str, Tensor]  # of that text, by name
    place: int | None = None  # the id in whose places an image stands; None: not known

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The ids in whose places media stand, and how many the prompt has."""
        return () if self.place is None else ((self.place, int((self.ids == self.place).sum())),)

    def is_of_tokens(self, name: str) -> bool:
        """Whether an input has a value for each token, `[1, seq]`."""
        return self.inputs[name].shape == self.ids.shape

    def longer(self, ids: Tensor) -> Tensors:
        """The inputs for a text `[1, seq]` that goes on behind the prompt: zeros for its tokens."""
        more = ids.shape[1] - self.ids.shape[1]
        return {n: pad(t, (0, more)) if self.is_of_tokens(n) else t for n, t in self.inputs.items()}


def media_of(source: Source) -> tuple[Media | None, str]:
    """The media of the source's example, or of one that is made up; or why there are none.  Empty for a text model."""
    given = {p.name: v for p, v in zip(forward_parameters(source.model), source.args, strict=False)} | {**source.kwargs}
    if not given:
        try:
            given = dict(make_example(source.model, source.model.config, Path(), padding=False).inputs)
        except SourceError as e:
            return None, str(e)
    ids = given.get("input_ids")
    beside = {n: t for n, t in given.items() if n not in TEXT and isinstance(t, Tensor)}
    if not isinstance(ids, Tensor) or not beside:
        return None, ""
    rows = ids.shape[0]
    if any(t.shape[0] % rows for t in beside.values()):
        return None, f"its example has {rows} texts, and inputs that are not as many for each; give one of one text"
    first = {n: t[: t.shape[0] // rows] for n, t in beside.items()}
    return Media(ids[:1], first, image_token_id(source.model.config)), ""


@dataclass(frozen=True)
class MediaAgreement:
    """A comparison of a step that has media with the model itself, for its first step and the one behind it."""

    step: nn.Module
    tables: Sequence[str]
    pools: Mapping[str, Tensor]  # by fully qualified name, of any number of pages or slots
    page: int
    media: Media

    @torch.no_grad()
    def difference(self, model: Any, weights: Tensors) -> float:
        """The largest difference of logits, relative to the largest logit.  `weights` are those of `model` by name."""
        first = self.media.ids
        text = torch.cat([first, first[:, -1:]], 1)
        pages = -(-text.shape[1] // self.page)
        state = {**weights, **{n: pool.new_zeros(1 + pages, *pool.shape[1:]) for n, pool in self.pools.items()}}
        tables = {name: torch.arange(1, 1 + pages)[None] for name in self.tables}
        differences: list[float] = []
        for new, whole, beside in ((first, first, self.media.inputs), (first[:, -1:], text, {})):
            done = whole.shape[1] - new.shape[1]
            given = {**tables, **beside} | ({"window_first": torch.zeros(1, dtype=torch.int64)} if done else {})
            counts = torch.tensor([done]), torch.tensor([new.shape[1]])
            got = step_logits(self.step, state, (new, *counts, given))[0]
            inputs = {"input_ids": whole, **self.media.longer(whole)}
            returned: Any = functional_call(model, weights, (), {**inputs, "use_cache": False})
            want = returned.logits[0, -1]
            differences.append(float((got - want).abs().max() / want.abs().max()))
        return max(differences)
