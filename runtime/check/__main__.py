"""The command line `python -m runtime.check OUT`.  Exit status: 0 whole, 2 not, with a line for each fault."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from runtime.check.artifact import faults
from runtime.errors import ManifestError

MOST = 20  # faults that are printed


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.check") -> int:
    folder = parser(prog).parse_args(argv).artifact
    try:
        found = [*islice(faults(folder), MOST)]
    except ManifestError as e:  # it says what to do
        print(f"error: {e}", file=sys.stderr)
        return 2
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    print(f"{folder} is not whole; compile the model again" if found else f"{folder} is whole")
    return 2 if found else 0


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Say whether an artifact is whole, without running it.",
        epilog=f"Example: {prog} build/mine",
    )
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    return options


if __name__ == "__main__":
    sys.exit(main())
