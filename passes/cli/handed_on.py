"""Subcommands with a command line of their own, which also runs as `python -m`."""

from __future__ import annotations

import argparse
import inspect
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand

from passes.cli.loading import load
from passes.cli.terminal import exit_status

HANDED_ON = {
    "run": ("runtime.run", "Run an artifact on tensors from a file, once."),
    "generate": ("runtime.generation.__main__", "Continue a prompt, token by token as they come."),
    "check": ("runtime.check.__main__", "Say whether an artifact is whole, without running it."),
    "measure": ("runtime.measure.__main__", "Measure this host's devices and links, for `compile --cluster`."),
    "partition": ("passes.partitioners.__main__", "Solve a published partitioning instance."),
}


class HandedOn(TyperCommand):
    """A command whose arguments another command line takes; the shell completes the flags of that one."""

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        name = self.name or ""
        self.params = _flags(load(HANDED_ON[name][0], name).parser(ctx.command_path))
        return super().shell_complete(ctx, incomplete)


def _flags(parser: argparse.ArgumentParser) -> Any:
    """The flags of another command line, as typer has those of its own."""
    flags = {a.dest: typer.Option(*a.option_strings, help=a.help) for a in parser._actions if a.option_strings}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(f, keyword, default="", annotation=Annotated[str, o]) for f, o in flags.items()]

    def command(**given: Any) -> None: ...

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    known = typer.Typer(add_completion=False)
    known.command(add_help_option=False)(command)
    return typer.main.get_command(known).params


def add_handed_on(app: typer.Typer) -> None:
    """Add these subcommands to a command."""
    for name, (_, text) in HANDED_ON.items():
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(name, cls=HandedOn, help=text, context_settings=settings, add_help_option=False)(_hand_on)


def _hand_on(context: typer.Context) -> None:
    with exit_status():
        main = load(HANDED_ON[context.info_name or ""][0], context.command_path).main
    raise typer.Exit(main(context.args, prog=context.command_path))
