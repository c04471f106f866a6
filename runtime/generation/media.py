"""Images and sounds before a text: the inputs of a decoder beside ids, in the first step of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from runtime.call.input_type import InputType
from runtime.errors import InputError
from runtime.manifest.manifest import Manifest

_PREFIX = "media_"  # of the names of inputs in the manifest


@dataclass(frozen=True, eq=False)
class TextMedia:
    """The media of one text, by the names of the manifest, and those of them that have a value for each token."""

    given: Mapping[str, Tensor]
    of_tokens: frozenset[str]

    def inputs(self, count: int) -> dict[str, Tensor]:
        """The inputs of a first step of `count` tokens: zeros for those behind the prompt."""
        return {n: pad(t, (0, count - t.shape[1])) if n in self.of_tokens else t for n, t in self.given.items()}


@dataclass(frozen=True)
class MediaInputs:
    """The media that an artifact takes: those of the program that has any, which reads one text at a time."""

    types: Mapping[str, InputType]  # by the name that callers give; empty where texts stand alone
    takes: tuple[str, ...] = ()  # all inputs of the program
    places: tuple[tuple[int, int], ...] = ()  # the ids in whose places media stand, and how many a prompt has

    @classmethod
    def of(cls, manifest: Manifest) -> MediaInputs:
        for program in manifest.programs:
            found = [t for t in program.inputs if t.name.startswith(_PREFIX)]
            if found:
                types = {t.name.removeprefix(_PREFIX): InputType.parse(t, program.symbols) for t in found}
                return cls(types, tuple(t.name for t in program.inputs), manifest.generation.places)
        return cls({})

    def named(self, options: Mapping[str, object]) -> dict[str, Tensor]:
        """The options of a call that are media.  Raises InputError for other tensors, and where some are missing."""
        given = {name: value for name, value in options.items() if isinstance(value, Tensor)}
        if wrong := sorted(given.keys() - self.types.keys()):
            alone = f"beside ids it takes {', '.join(self.types)}" if self.types else "it continues texts alone"
            raise InputError(f"this artifact takes no {wrong[0]}: {alone}")
        if given and (missing := [name for name in self.types if name not in given]):
            raise InputError(f"{next(iter(given))} goes with {', '.join(missing)}")
        return given

    def of_rows(
        self, given: Mapping[str, Tensor], ids: Sequence[Sequence[int]], mask: Tensor | None
    ) -> list[TextMedia]:
        """The media of each text, of which the prompts have these `ids`, `mask` [batch, seq] tells without padding.

        Each has as many entries as the others.  Raises InputError.
        """
        return [self._row(given, i, row, len(ids), mask) for i, row in enumerate(ids)] if given else []

    def _row(
        self, given: Mapping[str, Tensor], index: int, ids: Sequence[int], rows: int, mask: Tensor | None
    ) -> TextMedia:
        made: dict[str, Tensor] = {}
        of_tokens = {
            name for name, kind in self.types.items() if len(kind.dims) == 2 and not isinstance(kind.dims[1], int)
        }
        for name, tensor in given.items():
            part = tensor.tensor_split(rows)[index] if tensor.dim() else tensor
            if name in of_tokens and mask is not None:
                part = part[:, mask[index].to(torch.bool)]
            self.types[name].check(part, name)
            if name in of_tokens and part.shape[1] != len(ids):
                raise InputError(f"{name} is of {part.shape[1]} tokens, and the prompt has {len(ids)}")
            made[_PREFIX + name] = part
        for token, count in self.places:
            if ids.count(token) != count:
                raise InputError(
                    f"a prompt has {ids.count(token)} tokens {token}, in whose places media stand; this artifact takes "
                    f"{count}"
                )
        return TextMedia(made, frozenset(_PREFIX + name for name in of_tokens))
