"""Messages on stderr while a model is compiled, and the exit status of a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ir.errors import CompileError, InternalError

if TYPE_CHECKING:
    from ir.graph import Graph
    from passes.options.options import Options
    from passes.pipeline import PassResult

stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
_SILENT = Console(stderr=True, quiet=True)


@dataclass(frozen=True)
class Terminal:
    """Progress, notes and dumps of one compilation."""

    progress: Console = stderr
    dumps: Console = stdout  # where graphs are printed
    verbose: bool = False

    @classmethod
    def of(cls, options: Options, dumps: Console = stderr) -> Terminal:
        return cls(stderr if options.progress else _SILENT, dumps, options.verbose)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """A spinner while something runs, and a line with its time when it is done."""
        start = perf_counter()
        with self.progress.status(what):
            yield
        self.progress.print(f"{what:<20} {perf_counter() - start:6.1f} s")

    @contextmanager
    def writing(self, nbytes: int) -> Iterator[Callable[[int], None]]:
        """A bar of the weights that are written, of `nbytes`; yields a function that takes the bytes of each block."""
        if not nbytes:
            with self.during("stages"):
                yield lambda written: None
            return
        start = perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TimeRemainingColumn())
        with Progress(*columns, console=self.progress, transient=True, disable=not self.progress.is_terminal) as bar:
            task = bar.add_task("stages and weights", total=nbytes)
            yield lambda written: bar.advance(task, written)
        self.progress.print(f"{'stages and weights':<20} {perf_counter() - start:6.1f} s")

    def shown(
        self, steps: Iterator[PassResult], describe: Callable[[Graph | None, Graph], str]
    ) -> Iterator[PassResult]:
        """The same steps, with a spinner while each runs and a line when it is done."""
        doing, before = "export", None
        while True:
            with self.progress.status(doing):
                step = next(steps, None)
            if step is None:
                return
            self.progress.print(f"{step.name:<20} {step.seconds:6.1f} s   {_size(step.graph)}")
            if self.verbose:
                self.tell(describe(before, step.graph))
            yield step
            doing, before = "passes", step.graph

    def tell(self, what: str) -> None:
        """A line about how far something has come."""
        self.progress.print(f"  {what}", markup=False, soft_wrap=True)

    def note(self, what: str) -> None:
        self.progress.print(what, markup=False, soft_wrap=True)

    def dump(self, text: str) -> None:
        self.dumps.print(text, markup=False, soft_wrap=True)


def _size(graph: Graph) -> str:
    stages = len(graph.placement)
    return f"{len(graph.nodes)} nodes" + (f", {stages} stages" if stages > 1 else "")


@contextmanager
def exit_status() -> Iterator[None]:
    """One message for what goes wrong, and 2 for bad input, 1 for a fault of ours, 130 for an interrupt."""
    try:
        yield
    except InternalError as e:
        stderr.print(f"this is a fault of stagecut, not of your input: {e}", markup=False, soft_wrap=True)
        sys.exit(1)
    except CompileError as e:
        stderr.print(f"error: {e}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        stderr.print("interrupted; nothing was written")
        sys.exit(130)
