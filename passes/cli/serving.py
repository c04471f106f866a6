"""`stagecut serve`: from a source, or an artifact, to a server; `runtime.serve` does the rest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from passes.cli.flags import flag_names
from passes.cli.loading import load
from passes.cli.prepared import is_artifact, prepared
from passes.cli.terminal import exit_status
from passes.options.kinds import SWITCH
from passes.options.options import flags
from stagecut import __file__ as _COMMAND


class _ForCompile(argparse.Action):
    """A flag of `stagecut compile`: it is kept as it was given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        kept = [*namespace.compile_flags, option_string]
        namespace.compile_flags = kept if self.nargs == 0 else [*kept, values]


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Answer requests over HTTP: cut a model into a cache, if it is not cut yet, load it, serve it.",
        epilog=f"Example: {prog} build/llama --stages 2 --generate --port 8000",
    )
    load("runtime.serving.flags", prog).add_flags(options)
    options.set_defaults(compile_flags=[])
    group = options.add_argument_group("flags of stagecut compile, for a source that is not cut yet")
    for name, flag in flags().items():
        names = [n for n in flag_names(name, flag) if n not in options._option_string_actions]
        if name == "out" or not names:
            continue
        takes: dict[str, Any] = {"nargs": 0} if flag.kind is SWITCH else {"metavar": flag.kind.metavar or "VALUE"}
        group.add_argument(*names, action=_ForCompile, dest=name, help=flag.help.replace("%", "%%"), **takes)
    return options


def main(argv: Sequence[str] | None = None, prog: str = "stagecut serve") -> int:
    known = parser(prog)
    options = known.parse_args(argv)
    with exit_status():
        source = str(options.artifact)
        if is_artifact(source):
            prepared(source, options.compile_flags)
            return load("runtime.serve", prog).serve_artifact(options)
        artifact = prepared(source, _with_devices(options))
    options.name = options.name or options.artifact.resolve().stem
    # A new process: this one has what cutting needs, and who talks to clients has none of it.
    os.execv(sys.executable, [sys.executable, _COMMAND, "serve", str(artifact), *_again(known, options)])


def _again(known: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[str]:
    """The flags that were given, but for those of `stagecut compile`."""
    for flag in known._actions:
        value = getattr(options, flag.dest, flag.default)
        if isinstance(flag, _ForCompile) or not flag.option_strings or value == flag.default:
            continue
        yield flag.option_strings[-1]
        if flag.nargs != 0:
            yield str(value)


def _with_devices(options: argparse.Namespace) -> list[str]:
    """The flags for `stagecut compile`, which cuts for the devices that will run it: by default all of this host."""
    given = options.compile_flags
    if options.devices:
        return [*given, "--devices", options.devices]
    if "--stages" in given or "--cluster" in given:
        return given
    found = load("ir.machine.host", "stagecut serve").accelerators()
    return [*given, "--stages", str(len(found) or 1)]
