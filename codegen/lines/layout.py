"""Lines that are added to planned ones: `del` after the last use of large values, comments where the source changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codegen.lines.line import Bind, Comment, Delete, For, Line, Put, Return, walk_lines
from codegen.structure.program import inside, relative
from ir.location import Frame

SOON = 4  # statements that a large value may live on without a `del`


@dataclass(frozen=True)
class StatementLines:
    """The lines of one statement, and the variables of large values that nothing reads after it."""

    lines: tuple[Line, ...]
    dead: tuple[str, ...]

    @property
    def bound(self) -> set[str]:
        """The variables that get a value."""
        return {name for line in walk_lines(self.lines) if isinstance(line, Bind) for name in line.targets}


def with_deletions(steps: Sequence[StatementLines]) -> tuple[Line, ...]:
    """The lines of all steps; a dead variable is deleted unless a step soon binds it, or the function soon ends."""
    lines: list[Line] = []
    for i, step in enumerate(steps):
        lines += step.lines
        following = steps[i + 1 : i + 1 + SOON]
        rebound = {name for s in following for name in s.bound}
        names = tuple(name for name in step.dead if name not in rebound)
        if names and len(following) == SOON:
            lines.append(Delete(names))
    return tuple(lines)


def with_comments(lines: Sequence[Line], path: str) -> tuple[Line, ...]:
    """The lines with a comment where the user's module or file changes, in a function of the module `path`."""
    return tuple(_commented(lines, _Origins(path)))


def _commented(lines: Sequence[Line], origins: _Origins) -> Iterator[Line]:
    for line in lines:
        match line:
            case For():
                yield replace(line, body=tuple(_commented(line.body, origins)))
            case Bind(origin=Frame() as origin) | Put(origin=Frame() as origin) | Return(origin=Frame() as origin):
                yield from origins.comment(origin)
                yield line
            case _:
                yield line


@dataclass
class _Origins:
    """The place in the user's source that the last comment named."""

    path: str
    module: str | None = None

    def comment(self, origin: Frame) -> Iterator[Comment]:
        """A comment with the place that lines come from, if it is a new one."""
        if origin.module == self.module:
            return
        first, self.module = self.module is None, origin.module
        if first and self.path and origin.module == self.path:
            return  # the class says it
        place = f"{origin.file}:{origin.line}"
        shown = relative(origin.module, self.path) if inside(self.path, origin.module) else origin.module
        if origin.module == self.path:
            shown = "" if self.path else "the model itself"
        yield Comment(f"{shown} ({place})" if shown else place)
