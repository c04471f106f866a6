"""A command gets a flag for each field of `Options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

import typer

from passes.cli.terminal import exit_status
from passes.options.kinds import SWITCH, Flag
from passes.options.options import Options, flags


def with_flags(command: Callable[[str, Options], None], source: Any) -> Callable[..., None]:
    """The `command`, which takes a source and options, with the parameters that typer makes flags of.

    `source` is the annotation of the first one.
    """
    parameters = [inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=source)]
    for name, flag in flags().items():
        hint, default = _typed(name, flag)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    def run(source: str, **given: Any) -> None:
        with exit_status():
            command(source, Options(**{name: _value(name, value) for name, value in given.items()}))

    run.__doc__ = command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _typed(name: str, flag: Flag) -> tuple[Any, Any]:
    """What typer reads off a parameter, and its default."""
    default, kind = getattr(Options, name), flag.kind
    described = typer.Option(
        *(flag.names or (f"--{name.replace('_', '-')}",)),
        help=flag.help + _default(default),
        rich_help_panel=flag.group,
        metavar=kind.metavar or None,
        autocompletion=(lambda: list(kind.choices)) if kind.choices else None,
        show_default=False,
    )
    if kind is SWITCH:
        return Annotated[bool, described], False
    return Annotated[list[str] | None if kind.many else str | None, described], None


def _default(value: Any) -> str:
    """What the help says of a default, if there is one to speak of."""
    match value:
        case Enum():
            return f" (default: {value.value})"
        case int() | float() if not isinstance(value, bool):
            return f" (default: {value:g})"
    return ""


def _value(name: str, given: Any) -> Any:
    """The option's value, as Python calls give it; a text that does not read as one stays as it is."""
    flag, default = flags()[name], getattr(Options, name)
    match given:
        case bool():
            return given != flag.turns_off
        case str():
            try:
                return flag.kind.parse(given)
            except ValueError:
                return given
        case _:
            return given or default
