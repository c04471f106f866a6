"""A buffer of indented source lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LINE_LENGTH = 120


class Source:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    @property
    def count(self) -> int:
        """The lines so far, and so the number of the last one."""
        return len(self._lines)

    def height(self, start: int) -> int:
        """The lines since a place, with those that the formatter breaks counted more than once."""
        return sum(1 + len(line) // LINE_LENGTH * 3 for line in self._lines[start:])

    def line(self, text: str = "") -> None:
        self._lines.append("    " * self._depth + text if text else "")

    def insert(self, after: int, text: str) -> None:
        """A line after one with a number, as deep as the current block."""
        self._lines.insert(after, "    " * self._depth + text)

    def lines(self, text: str) -> None:
        for line in text.splitlines():
            self.line(line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def formatted(source: str) -> str:
    """The source as `ruff format` lays it out."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={LINE_LENGTH}", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
