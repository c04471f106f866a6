"""Stored tensors whose names differ by a suffix -> the groups of them that are one weight each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError, in_one_line

Sources = Mapping[str, Tensorlike]
"""The stored tensors of one weight by what they are, unread."""


@dataclass(frozen=True, eq=False)
class Suffixes:
    """The suffixes by which a library names the stored tensors of a weight.

    A name that ends with `mark` gives the stem; the stem with each suffix of `parts` is a tensor of the group, and all
    must be there; those of `further` may be.  The stem with `weight` is the name of the weight.
    """

    mark: str
    weight: str
    parts: Mapping[str, str]
    further: Mapping[str, str] = field(default_factory=dict)

    def group(self, name: str, tensors: Sources) -> tuple[str, dict[str, str]] | None:
        """The weight that a marked name belongs to, and the names of its tensors by what they are."""
        if not name.endswith(self.mark):
            return None
        stem = name.removesuffix(self.mark)
        names = {part: stem + suffix for part, suffix in self.parts.items()}
        if not all(part in tensors for part in names.values()):
            return None
        more = {part: stem + suffix for part, suffix in self.further.items() if stem + suffix in tensors}
        return stem + self.weight, names | more


@dataclass(frozen=True)
class GroupedWeight:
    """A quantized weight: its name, its scheme, and its stored tensors by what they are."""

    name: str
    scheme: Scheme
    names: Mapping[str, str]
    parts: Sources


@contextmanager
def reading_weight(name: str) -> Iterator[None]:
    """Raise SourceError, with the weight, for stored tensors that do not go together."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as e:
        raise SourceError(
            f"{name} is not stored as its quantization has it ({in_one_line(e)}); fetch the files again, or save the "
            "model anew"
        ) from e


def grouped(
    tensors: Sources, kinds: Mapping[Suffixes, Callable[[Sources], tuple[Scheme, Sources]]]
) -> Iterator[GroupedWeight]:
    """The quantized weights of a table; a kind gives the scheme of a group and the tensors of it that count."""
    for name in tensors:
        for suffixes, kind in kinds.items():
            if (group := suffixes.group(name, tensors)) is not None:
                weight, names = group
                with reading_weight(weight):
                    scheme, parts = kind({part: tensors[n] for part, n in names.items()})
                yield GroupedWeight(weight, scheme, names, parts)
                break
