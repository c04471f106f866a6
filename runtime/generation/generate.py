"""`Pipeline.generate` and `Pipeline.start`: prompts -> what `model.generate` returns, steps, or a continuation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from runtime.call.adapter_rows import AdapterNames
from runtime.errors import InputError, demand
from runtime.generation.continuation import Continuation, Step, Told
from runtime.generation.generator import CLOSED, Generator
from runtime.generation.options import pad_id, text_options, told_padding
from runtime.generation.prompts.media import MediaInputs
from runtime.generation.prompts.prompt_reader import Prompt, PromptReader, are_several
from runtime.generation.prompts.text import Tokenizer
from runtime.generation.scheduling.widths import SourceWidths
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Manifest
from runtime.options import is_count

_PREPARING = 8  # tokens of a text: enough for all texts to share some steps


class TextGeneration:
    """The texts of a pipeline."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        stages: GeneratingStages,
    ) -> None:
        """Raises InputError where the artifact is no decoder."""
        if not manifest.generation.page:
            raise InputError(f"{manifest.name} was not compiled to continue texts", "compile it with --generate")
        self._generation, self._adapters = manifest.generation, AdapterNames(manifest.adapters)
        self._media = media = MediaInputs.of(manifest)
        self._first = manifest.programs[0]
        first, takes = ([t.name for t in manifest.programs[i].inputs] for i in (0, 0 if media.programs else -1))
        widths = SourceWidths.of(manifest.programs[0], manifest.generation.source)
        submit = stages.submit
        stages = replace(stages, submit=lambda given, ready: submit(widths.padded(given), ready))
        self._generator = Generator(manifest.generation, takes, stages, first, media.takes)
        self._tokenizer = Tokenizer(folder)
        self._prompts = PromptReader(manifest.generation, self._tokenizer, media)

    def start(self, prompt: Any, options: dict[str, Any], written: Sequence[int] = ()) -> Continuation:
        """The continuation of one prompt, of which the first tokens may be known."""
        if are_several(prompt):
            raise InputError("start takes one prompt", "generate takes several")
        beside = self._media.named(options)
        options = {name: value for name, value in options.items() if name not in beside}
        [read] = self._prompts.read(prompt, None, beside, told_padding(self._generation, options))
        return self._start(read, options, written=written)

    def generate(
        self, given: Any, mask: torch.Tensor | None, copies: int, stream: bool, options: dict[str, Any]
    ) -> Any:
        if not is_count(copies):
            raise InputError(f"num_return_sequences is {copies}; it must be at least 1")
        several, beside = are_several(given), self._media.named(options)
        options = {name: value for name, value in options.items() if name not in beside}
        read = self._prompts.read(given, mask, beside, told_padding(self._generation, options))
        prompts = [prompt for prompt in read for _ in range(copies)]
        if stream:
            return self._stream(prompts, copies, options)
        begun = self._start_all(prompts, copies, options, None)
        with _cancelled_by_an_error(begun):
            if isinstance(given, torch.Tensor):
                return self._whole(given if several else given[None], copies, begun, pad_id(self._generation, options))
            results = [one.result() for one in begun]
        return results if several or copies > 1 else results[0]

    def prepare(self, batch: int = 2, **others: int) -> None:
        """Write some tokens of 1, 2, 4, … and `batch` texts."""
        if others:
            raise InputError(f"a decoder prepares steps of so many texts, `batch`, and not by {', '.join(others)}")
        demand(is_count(batch), "batch", batch, "a number of texts, at least 1")
        terms, prompt = self._generation, self._prompts.shortest(self._first)
        room = min(terms.max_length, (terms.pages - 1) * terms.page) if terms.pages else terms.max_length
        options: dict[str, Any] = {"max_new_tokens": min(_PREPARING, room - 1), "eos_token_id": [], "do_sample": False}
        for texts in (*takewhile(lambda texts: texts < batch, (1 << i for i in count())), batch):
            for begun in [self._start(prompt, options) for _ in range(texts)]:
                begun.result()

    def close(self, why: str = CLOSED) -> None:
        self._generator.close(why)

    def _start(
        self,
        prompt: Prompt,
        options: dict[str, Any],
        row: int = 0,
        told: Told | None = None,
        written: Sequence[int] = (),
    ) -> Continuation:
        named = {key: value for key, value in options.items() if key != "pad_token_id"}
        terms = text_options(self._generation, len(prompt.ids), named, self._adapters, prompt.padding)
        if terms.ends and not prompt.text:
            raise InputError(f"the prompt is ids, which the text {terms.ends[0]!r} cannot end", "stop it by ids")
        if terms.ends:
            terms = replace(terms, stop=terms.stop | self._tokenizer.special_ids(terms.ends))
        before = prompt.ids if prompt.goes_on else ()
        reader = self._tokenizer.reader(terms.ends, before) if prompt.text else None
        return self._generator.start(prompt.ids, terms, row, reader, told, prompt.source, prompt.media, written)

    def _start_all(
        self, prompts: Sequence[Prompt], copies: int, options: dict[str, Any], told: Told | None
    ) -> list[Continuation]:
        """All prompts; each of several copies draws with a seed of its own."""
        begun: list[Continuation] = []
        with _cancelled_by_an_error(begun):
            for row, prompt in enumerate(prompts):
                begun.append(self._start(prompt, _seeded(options, row % copies), row, told))
        return begun

    def _stream(self, prompts: Sequence[Prompt], copies: int, options: dict[str, Any]) -> Iterator[Step]:
        """The steps of all rows as they come.  Rows are cancelled when the caller stops reading."""
        steps: SimpleQueue[Step | BaseException | None] = SimpleQueue()
        begun = self._start_all(prompts, copies, options, steps.put)

        def read() -> Iterator[Any]:
            left = len(begun)
            try:
                yield None
                while left:
                    match steps.get():
                        case None:
                            left -= 1
                        case Step() as step:
                            yield step
                        case BaseException() as error:
                            raise error
            finally:
                for one in begun:
                    one.cancel()

        begins = read()
        next(begins)  # only one that has begun ends what it does when it is dropped
        return begins

    def _whole(self, given: torch.Tensor, copies: int, begun: Sequence[Continuation], pad: int) -> torch.Tensor:
        """[rows, length] of ids: the prompts, what follows, the ids that ended it, and `pad` up to the longest.

        With an encoder that with which texts begin, in place of the prompts.
        """
        if self._generation.source:
            given = torch.tensor([self._generation.begin] * len(given), device=given.device)
        for one in begun:
            one.result()
        new = [[step.token for step in one.steps] for one in begun]
        width = max(map(len, new))
        filled = torch.tensor([[*row, *[pad] * (width - len(row))] for row in new], dtype=given.dtype)
        return torch.cat([given.repeat_interleave(copies, 0), filled.to(given.device)], 1)


def _seeded(options: dict[str, Any], copy: int) -> dict[str, Any]:
    seed = options.get("seed")
    return options if seed is None or not copy else {**options, "seed": seed + copy}


@contextmanager
def _cancelled_by_an_error(begun: Sequence[Continuation]) -> Iterator[None]:
    """A block after whose error, an interrupt included, none of these goes on."""
    try:
        yield
    except BaseException:
        for one in begun:
            one.cancel()
        raise
