"""`stagecut generate`: from a source, or an artifact, to text; `runtime.generation` does the rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ir.errors import SourceError
from passes.cli.cut_first.compile_flags import cut, run_anew, source_parser
from passes.cli.cut_first.prepared import is_artifact, prepared
from passes.cli.loading import load
from passes.cli.terminal import exit_status


def parser(prog: str) -> argparse.ArgumentParser:
    return source_parser(
        prog,
        load("runtime.generation.flags", prog).add_generation_flags,
        description="Continue a prompt, token by token as they come; a model that is not cut yet is cut into a cache.",
        epilog=f'Example: {prog} build/llama "Once upon a time" --max-new-tokens 64',
    )


def main(argv: Sequence[str] | None = None, prog: str = "stagecut generate") -> int:
    known = parser(prog)
    options = known.parse_args(argv)
    with exit_status():
        source = str(options.artifact)
        if is_artifact(source):
            prepared(source, options.compile_flags)
            _check_prompt(Path(source), options)
            return load("runtime.generation.__main__", prog).continue_prompt(options)
        if "--generate" not in options.compile_flags:
            options.compile_flags = [*options.compile_flags, "--generate"]
        _check_prompt(Path(source), options)
        artifact = cut(source, options)
    run_anew("generate", known, options, str(artifact), options.prompt)


_TOKENIZERS = ("tokenizer.json", "tokenizer/tokenizer.json", "snapshots/*/tokenizer.json", "adapter_config.json")
"""The files of a folder, an artifact or the hub's cache with a tokenizer; that of an adapter may lie in its base."""


def _check_prompt(source: Path, options: argparse.Namespace) -> None:
    """Raise SourceError for a text that an artifact cannot read, or that of a source could not, before that is cut."""
    if source.exists() and not options.ids and not any(any(source.glob(name)) for name in _TOKENIZERS):
        raise SourceError(
            f"{source} has no tokenizer.json, so its prompts are token ids; say --ids, as --ids '1 15 27'"
        )
