"""The difference of two dumps: what a pass did to a graph, in a few lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from textwrap import fill
from typing import NamedTuple

WIDTH = 120
ELLIPSIS = 3  # the fewest neighbours that are written `first … last`


class Line(NamedTuple):
    """A line of a dump: the node itself, and the notes that passes left in the comment behind it."""

    text: str
    notes: str

    @classmethod
    def read(cls, line: str) -> Line:
        text, _, notes = line.partition("  # ")
        return cls(text, notes) if text.strip() else cls(line, "")

    @property
    def name(self) -> str:
        """The first value that the node makes."""
        return self.text.split(":")[0].strip()

    def __str__(self) -> str:
        return f"{self.text}  # {self.notes}" if self.notes else self.text


def difference(before: str, after: str) -> str:
    """What makes one dump of the other.

    First come the lines that are gone (`-`) and new (`+`), each block below the line that it follows.  Then, for
    nodes that are the same but for their notes, each change of the notes with the nodes that it befell; of neighbours
    the first and the last are named, and their number.
    """
    old, new = ([Line.read(line) for line in text.splitlines()] for text in (before, after))
    blocks = SequenceMatcher(
        None, [line.text for line in old], [line.text for line in new], autojunk=False
    ).get_opcodes()
    kept = [pair for tag, a, b, c, d in blocks if tag == "equal" for pair in zip(old[a:b], new[c:d], strict=True)]
    changed = [line for tag, a, b, c, d in blocks if tag != "equal" for line in _block(old, new, a, b, c, d)]
    return "".join(f"{line}\n" for line in (*changed, *_noted(kept))) or "nothing\n"


def _block(old: Sequence[Line], new: Sequence[Line], a: int, b: int, c: int, d: int) -> Iterator[str]:
    yield f"@ {new[c - 1].text.strip()}" if c else "@"
    yield from (f"- {str(line).strip()}" for line in old[a:b])
    yield from (f"+ {str(line).strip()}" for line in new[c:d])


def _noted(kept: Sequence[tuple[Line, Line]]) -> Iterator[str]:
    """Each change of notes, and the nodes that it befell."""
    changes = [(now.name, _change(was.notes, now.notes)) for was, now in kept if not now.text.startswith("  # ")]
    for change in dict.fromkeys(change for _, change in changes if change):
        yield change
        names = ", ".join(_runs([name if found == change else "" for name, found in changes]))
        yield fill(names, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _change(was: str, now: str) -> str:
    old, new = (Counter(re.split(r" (?=\w+=|view\b|cheap\b)", notes) if notes else ()) for notes in (was, now))
    return " ".join([*(f"-{note}" for note in (old - new)), *(f"+{note}" for note in (new - old))])


def _runs(names: Sequence[str]) -> Iterator[str]:
    """The names, with the first and the last for many that are next to each other."""
    run: list[str] = []
    for name in (*names, ""):
        if name:
            run.append(name)
        elif len(run) < ELLIPSIS:
            yield from run
            run = []
        else:
            yield f"{run[0]} … {run[-1]} ({len(run)})"
            run = []
