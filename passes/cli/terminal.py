"""What the command line tells a person while it works, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console

from ir.errors import CompileError, InternalError
from ir.graph import Graph
from passes.pipeline import Step

stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner while something runs, and a line with its time when it is done."""
    start = perf_counter()
    with stderr.status(what):
        yield
    stderr.print(f"{what:<20} {perf_counter() - start:6.1f} s")


def shown(steps: Iterator[Step]) -> Iterator[Step]:
    """The same steps, with a spinner while each runs and a line when it is done."""
    doing = "export"
    while True:
        with stderr.status(doing):
            step = next(steps, None)
        if step is None:
            return
        stderr.print(f"{step.name:<20} {step.seconds:6.1f} s   {_size(step.graph)}")
        yield step
        doing = "passes"


def tell(what: str) -> None:
    """A line about how far something has come."""
    stderr.print(f"  {what}", markup=False)


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
