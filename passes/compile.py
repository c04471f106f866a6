"""The command line: `python -m passes.compile SOURCE -o OUT --stages N`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """While this lasts an interrupt ends the process at once.

    Libraries that are being imported lose the exception, and nothing is open yet that would have to be closed.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # in a shell's background job
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    sys.stderr.write("interrupted; nothing was written\n")
    sys.stderr.flush()
    os._exit(130)


def main() -> None:
    with ended_by_interrupt():  # torch takes seconds
        from passes.cli.command import run
    run()


if __name__ == "__main__":
    main()
