"""A process of a job other than rank 0: it runs its stages until rank 0 closes the pipeline, or is gone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from runtime.command_line import loaded, status_of
from runtime.flags import add_loading_flags


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runtime.serving.engines.follower")
    add_loading_flags(parser)
    options = parser.parse_args(argv)
    return status_of(lambda: loaded(options).close())


if __name__ == "__main__":
    sys.exit(main())
