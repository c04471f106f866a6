"""`stagecut serve`: from a source, or an artifact, to a server; `runtime.serve` does the rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from passes.cli.cut_first.compile_flags import cut, run_anew, source_parser
from passes.cli.cut_first.prepared import is_artifact, prepared
from passes.cli.loading import load
from passes.cli.terminal import exit_status


def parser(prog: str) -> argparse.ArgumentParser:
    return source_parser(
        prog,
        load("runtime.serving.flags", prog).add_serving_flags,
        description="Answer requests over HTTP: cut a model into a cache, if it is not cut yet, load it, serve it.",
        epilog=f"Example: {prog} build/llama --stages 2 --generate --port 8000",
    )


def main(argv: Sequence[str] | None = None, prog: str = "stagecut serve") -> int:
    known = parser(prog)
    options = known.parse_args(argv)
    with exit_status():
        source = str(options.artifact)
        if is_artifact(source):
            prepared(source, options.compile_flags)
            return load("runtime.serve", prog).serve_artifact(options)
        artifact = cut(source, options, options.replicas, options.hosts)
    options.name = options.name or options.artifact.resolve().stem
    run_anew("serve", known, options, str(artifact))
