"""Images and sounds before a text: the inputs of a decoder beside ids, in the first step of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from runtime.call.input_type import InputType
from runtime.call.inputs import Inputs
from runtime.call.trees.tree_nodes import fixed_values
from runtime.errors import InputError
from runtime.generation.prompts.media_images import (
    grid_positions,
    parts_by_images,
    parts_by_number,
    parts_by_padding,
    parts_by_sizes,
)
from runtime.manifest.manifest import Manifest, MediaPlaces, ProgramEntry

_PREFIX = "media_"  # of the names of inputs in the manifest
_FIXED_PREFIX = "media."  # of those whose values are fixed
_POSITIONS = "media_position_ids"  # the input that is made here


@dataclass(frozen=True, eq=False)
class TextMedia:
    """The media of one text, by the names of the manifest: the inputs of its first step, which takes its prompt."""

    given: Mapping[str, Tensor]
    shift: int = 0  # what is added to the positions of tokens behind the prompt


@dataclass(frozen=True)
class MediaProgram:
    """The media that one program takes, by the names that callers give."""

    types: Mapping[str, InputType]
    places: MediaPlaces | None = None  # None: not known
    fixed: Mapping[str, Tensor] = field(default_factory=dict)  # the values that numbers must have
    positions: InputType | None = None  # of the input that is made of `places`

    @classmethod
    def of(cls, entry: ProgramEntry, places: MediaPlaces | None) -> MediaProgram:
        types = {t.name: InputType.parse(t, entry.symbols) for t in entry.inputs if t.name.startswith(_PREFIX)}
        positions = types.pop(_POSITIONS, None)
        known = dict(pair for name, node in Inputs.parse(entry).arguments.items() for pair in fixed_values(node, name))
        fixed = {n.removeprefix(_FIXED_PREFIX): v.tensor for n, v in known.items() if n.startswith(_FIXED_PREFIX)}
        images = 1 if places is not None and places.padded else 0  # the dimension of these
        if places is not None and all(isinstance(kind.dims[images], int) for kind in types.values()):
            places = replace(places, each=0)  # the number of images could not be any
        return cls({n.removeprefix(_PREFIX): kind for n, kind in types.items()}, places, fixed, positions)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.types, *self.fixed)

    def fits(self, given: Mapping[str, Tensor]) -> bool:
        """Whether the numbers of a text have the values of this program."""
        return all(torch.equal(given[name].to(value), value) for name, value in self.fixed.items())

    def parts(
        self, given: Mapping[str, Tensor], prompts: Sequence[Sequence[int]], mask: Tensor | None
    ) -> list[dict[str, Tensor] | None]:
        """Those of each text, see `part`; where it has any number of images, as many as its ids ask for, None for none.

        Raises InputError.
        """
        rows = len(prompts)
        if self.places is None or not (self.places.grids or self.places.each):
            return [self.part(given, row, rows, mask) for row in range(rows)]
        images = 1 if self.places.padded else 0  # the dimension of these
        counted = {n for n, t in self.types.items() if not isinstance(t.dims[images], int)} - {self.places.grids}
        counted -= self._of_tokens
        by_size = parts_by_sizes if self.places.divisors else parts_by_images
        by_number = parts_by_padding if self.places.padded else parts_by_number
        parts = by_size if self.places.grids else by_number
        own = parts(self.places, given, sorted(counted), prompts)
        others = {name: t for name, t in given.items() if name not in counted and name != self.places.grids}
        return [{**self.part(others, row, rows, mask), **part} if part else None for row, part in enumerate(own)]

    def part(self, given: Mapping[str, Tensor], row: int, rows: int, mask: Tensor | None) -> dict[str, Tensor]:
        """Those of one text of several, as many entries as of the others, without the padding that `mask` tells."""
        made = {name: t.tensor_split(rows)[row] if t.dim() else t for name, t in given.items()}
        if mask is None:
            return made
        real = mask[row].to(torch.bool)
        return {n: t[:, real] if n in self._of_tokens else t for n, t in made.items()}

    def text(self, given: Mapping[str, Tensor], ids: Sequence[int]) -> TextMedia:
        """The media of one text, which has these `ids`.  Raises InputError."""
        made: dict[str, Tensor] = {}
        for name, kind in self.types.items():
            part = given[name] if given[name].is_floating_point() else given[name].to(kind.dtype)
            kind.check(part, name)
            if name in self._of_tokens and part.shape[1] != len(ids):
                raise InputError(f"{name} is of {part.shape[1]} tokens, and the prompt has {len(ids)}")
            made[_PREFIX + name] = part
        made |= {_FIXED_PREFIX + name: value for name, value in self.fixed.items()}
        if self.places is None or self.places.each or self.places.divisors:
            return TextMedia(made)
        if self.places.grids:
            found = grid_positions(self.places, ids, given[self.places.grids])
            made[_POSITIONS] = found
            return TextMedia(made, int(found[-1, 0, -1]) - len(ids) + 1)
        if (count := ids.count(self.places.token)) != self.places.count:
            raise InputError(
                f"a prompt has {count} tokens {self.places.token}, in whose places media stand; this artifact takes "
                f"{self.places.count}"
            )
        if self.positions is None:
            return TextMedia(made)
        found = media_positions(self.places, ids)
        made[_POSITIONS] = found if len(self.positions.dims) == 3 else found[0]
        return TextMedia(made, self.places.offsets[-1][-1])

    @property
    def _of_tokens(self) -> frozenset[str]:
        """The names of those that have a value for each token."""
        return frozenset(n for n, t in self.types.items() if len(t.dims) == 2 and not isinstance(t.dims[1], int))


def media_positions(places: MediaPlaces, ids: Sequence[int]) -> Tensor:
    """`int64[rows, 1, seq]`: the positions of the ids of a prompt.  Raises InputError where media are torn apart."""
    columns, done = list[int](), 0  # of `places.offsets`
    for token in ids:
        if token == places.token:
            columns.append(done)
            done += 1
        elif done in places.counts:
            columns.append(places.count + places.counts.index(done))
        else:
            raise InputError(
                f"behind {done} of the {places.count} tokens {places.token} stands another; media have theirs in a row"
            )
    return torch.tensor(places.offsets)[:, None, columns] + torch.arange(len(ids))


@dataclass(frozen=True)
class MediaInputs:
    """The media that an artifact takes: those of the programs that have any, which read one text at a time."""

    programs: tuple[MediaProgram, ...] = ()  # none where texts stand alone; of several, numbers tell which
    takes: tuple[str, ...] = ()  # all inputs of such a program

    @classmethod
    def of(cls, manifest: Manifest) -> MediaInputs:
        found = [p for p in manifest.programs if any(t.name.startswith(_PREFIX) for t in p.inputs)]
        programs = tuple(MediaProgram.of(p, manifest.generation.media.get(p.name)) for p in found)
        return cls(programs, tuple(t.name for t in found[0].inputs) if found else ())

    def named(self, options: Mapping[str, object]) -> dict[str, Tensor]:
        """The options of a call that are media.  Raises InputError for other tensors, and where some are missing."""
        given = {name: value for name, value in options.items() if isinstance(value, Tensor)}
        known = list(dict.fromkeys(name for program in self.programs for name in program.names))
        if wrong := sorted(given.keys() - set(known)):
            alone = f"beside ids it takes {', '.join(known)}" if known else "it continues texts alone"
            raise InputError(f"this artifact takes no {wrong[0]}: {alone}")
        if given and (missing := [name for name in known if name not in given]):
            raise InputError(f"{next(iter(given))} goes with {', '.join(missing)}")
        return given

    def of_rows(
        self, given: Mapping[str, Tensor], ids: Sequence[Sequence[int]], mask: Tensor | None
    ) -> list[TextMedia | None]:
        """The media of each text, of which the prompts have these `ids`, `mask` [batch, seq] tells without padding.

        Each has as many entries as the others, or those of its images, None where it has none.  Raises InputError.
        """
        if not given:
            return []
        parts = [program.parts(given, ids, mask) for program in self.programs]
        return [self._row([part[i] for part in parts], row) for i, row in enumerate(ids)]

    def _row(self, given: Sequence[Mapping[str, Tensor] | None], ids: Sequence[int]) -> TextMedia | None:
        """The media of a text, by what each program would take of it."""
        parts = [part for part in given if part is not None]
        if not parts:
            return None
        for program, part in zip(self.programs, parts, strict=True):
            if program.fits(part):
                return program.text(part, ids)
        part = parts[0]
        found = ", ".join(f"{name} {part[name].tolist()}" for name in self.programs[0].fixed)
        taken = "; ".join(", ".join(f"{n} {v.tolist()}" for n, v in program.fixed.items()) for program in self.programs)
        raise InputError(
            f"a prompt has {found}, and this artifact takes {taken}", "compile with --fix: each becomes a program"
        )
