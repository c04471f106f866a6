"""The flags of `stagecut compile` in commands that cut a source before they run it, and what they hand on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from passes.cli.cut_first.prepared import prepared
from passes.cli.flags import flag_names
from passes.cli.loading import load
from passes.options.kinds import SWITCH
from passes.options.options import flags
from stagecut import __file__ as _COMMAND


class _ForCompile(argparse.Action):
    """A flag of `stagecut compile`: it is kept as it was given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        kept = [*namespace.compile_flags, option_string]
        namespace.compile_flags = kept if self.nargs == 0 else [*kept, values]


def source_parser(
    prog: str, add_flags: Callable[[argparse.ArgumentParser], None], description: str, epilog: str
) -> argparse.ArgumentParser:
    """The parser of a command on a source or an artifact: its own flags, then those of `stagecut compile`."""
    options = argparse.ArgumentParser(prog=prog, allow_abbrev=False, description=description, epilog=epilog)
    add_flags(options)
    _add_compile_flags(options)
    return options


def _add_compile_flags(options: argparse.ArgumentParser) -> None:
    """Those that a command line has no flag of its own for; they are kept in `compile_flags`."""
    options.set_defaults(compile_flags=[])
    group = options.add_argument_group("flags of stagecut compile, for a source that is not cut yet")
    for name, flag in flags().items():
        names = [n for n in flag_names(name, flag) if n not in options._option_string_actions]
        if name == "out" or not names:
            continue
        takes: dict[str, Any] = {"nargs": 0} if flag.kind is SWITCH else {"metavar": flag.kind.metavar or "VALUE"}
        group.add_argument(*names, action=_ForCompile, dest=name, help=flag.help.replace("%", "%%"), **takes)


def cut(source: str, options: argparse.Namespace, replicas: int = 1, hosts: int = 1) -> Path:
    """The artifact of a source, made for the devices that will run it, by default all of this host, if need be.

    `replicas`: that share the devices of this host; `hosts`: like this one, whose devices run it together.
    """
    given = list(options.compile_flags)
    if options.devices:
        names = options.devices.split(",")
        given = [*given, "--devices", ",".join(names[: max(len(names) // replicas, 1)])]
    elif "--stages" not in given and "--cluster" not in given:
        found = load("ir.machine.host", "stagecut").accelerators()
        given = [*given, "--stages", str(max(len(found) // replicas, 1) * hosts)]
    return prepared(source, given)


def run_anew(command: str, known: argparse.ArgumentParser, options: argparse.Namespace, *given: str) -> NoReturn:
    """Run a command on an artifact in a new process, in place of this one, which has what cutting needs in memory.

    `given`: its positional arguments; its flags are those of this one.
    """
    os.execv(sys.executable, [sys.executable, _COMMAND, command, *given, *_again(known, options)])


def _again(known: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[str]:
    """The flags that were given, but for those of `stagecut compile`."""
    for flag in known._actions:
        value = getattr(options, flag.dest, flag.default)
        if isinstance(flag, _ForCompile) or not flag.option_strings or value == flag.default:
            continue
        for one in value if isinstance(value, list) else [value]:
            yield flag.option_strings[0 if one is not False else -1]
            if flag.nargs != 0:
                yield str(one)
