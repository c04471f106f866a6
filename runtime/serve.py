"""The command line: answer requests over HTTP with an artifact.

    python -m runtime.serve OUT --port 8000

This process talks to clients and holds no weights; an engine process of its own runs the stages, and is started again
if it dies.  SIGTERM and SIGINT: the requests that are here are answered, then it ends.

Exit status: 0 ended by a signal, 2 bad input (one message).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from runtime.errors import InputError, ManifestError
from runtime.serving.flags import parser


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.serve") -> int:
    return serve_artifact(parser(prog).parse_args(argv))


def serve_artifact(options: argparse.Namespace) -> int:
    """Serve until a signal comes, and return the exit status."""
    try:
        return import_module("runtime.serving.front.listening").serve(options)
    except ModuleNotFoundError as e:
        if str(e.name).startswith("runtime"):
            raise
        print(f"error: serving needs the library {e.name}: pip install 'stagecut[serve]'", file=sys.stderr)
    except (InputError, ManifestError) as e:
        print(f"error: {e}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
