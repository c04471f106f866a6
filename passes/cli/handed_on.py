"""Subcommands with a command line of their own, which also runs as `python -m`."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand

from passes.cli.loading import load
from passes.cli.terminal import exit_status


@dataclass(frozen=True)
class CommandLine:
    """A command line of its own: the modules of its `main` and of its `parser`, the latter without torch; its help."""

    main: str
    flags: str
    help: str

    def parser(self, prog: str) -> argparse.ArgumentParser:
        return load(self.flags, prog).parser(prog)


HANDED_ON = {
    "run": CommandLine("runtime.run", "runtime.flags", "Run an artifact on tensors from a file, once."),
    "generate": CommandLine(
        "passes.cli.cut_first.generating",
        "passes.cli.cut_first.generating",
        "Continue a prompt; cut the model first, if need be.",
    ),
    "serve": CommandLine(
        "passes.cli.cut_first.serving",
        "passes.cli.cut_first.serving",
        "Answer requests over HTTP; cut the model first, if need be.",
    ),
    "package": CommandLine(
        "runtime.package",
        "runtime.serving.packages.flags",
        "Write what TorchServe, Triton, Ray or KServe need to run it.",
    ),
    "export": CommandLine(
        "passes.cli.exporting",
        "passes.cli.exporting",
        "Write the weights of an artifact as a checkpoint: safetensors or torch.distributed.checkpoint.",
    ),
    "adapter": CommandLine(
        "passes.cli.adding",
        "passes.cli.adding",
        "Add a LoRA adapter to an artifact that keeps some, without compiling.",
    ),
    "check": CommandLine(
        "runtime.check.__main__", "runtime.check.__main__", "Say whether an artifact is whole, without running it."
    ),
    "measure": CommandLine(
        "runtime.measure.__main__",
        "runtime.measure.flags",
        "Measure this host's devices and links, for `compile --cluster`.",
    ),
    "partition": CommandLine(
        "passes.partitioners.__main__", "passes.partitioners.__main__", "Solve a published partitioning instance."
    ),
}


class HandedOn(TyperCommand):
    """A command whose arguments another command line takes; the shell completes the flags of that one."""

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self.params = _flags(HANDED_ON[self.name or ""].parser(ctx.command_path))
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
    for name, line in HANDED_ON.items():
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(name, cls=HandedOn, help=line.help, context_settings=settings, add_help_option=False)(_hand_on)


def _hand_on(context: typer.Context) -> None:
    line = HANDED_ON[context.info_name or ""]
    with exit_status():
        parser = line.parser(context.command_path)
        parser.error = context.fail  # as typer says what is wrong, without the usage of sixty flags before it
        parser.parse_args(context.args)  # help and mistakes, before torch is imported
        main = load(line.main, context.command_path).main
    raise typer.Exit(main(context.args, prog=context.command_path))
