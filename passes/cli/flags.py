"""A command gets a flag for each field of `Options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Annotated, Any

import typer

from ir.errors import CompileError, OptionError
from passes.cli.terminal import exit_status
from passes.options.completions import Completions, none_known
from passes.options.kinds import SWITCH, Flag
from passes.options.options import Options, flags

_ALL: Mapping[type[Any], Collection[str]] = {Options: tuple(flags())}


def with_flags(
    command: Callable[..., None], source: Any, groups: Mapping[type[Any], Collection[str]] = _ALL
) -> Callable[..., None]:
    """The `command`, which takes a source and options, with the parameters that typer makes flags of.

    `source` is the annotation of the first one; `groups` are the classes of the options, each with the names of those
    that the command takes.
    """
    parameters = [inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=source)]
    for options, names in groups.items():
        for name in names:
            hint, default = _typed(name, flags(options)[name], getattr(options, name))
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    def run(source: str, **given: Any) -> None:
        with exit_status():
            command(source, *(_options(options, names, given) for options, names in groups.items()))

    run.__doc__ = command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _options(of: type[Any], names: Collection[str], given: Mapping[str, Any]) -> Any:
    """The options that were given.  Raises CompileError that names a flag whose value is not of its kind."""
    try:
        return of(**{name: _value(flags(of)[name], getattr(of, name), given[name]) for name in names})
    except OptionError as e:
        raise CompileError(f"{flag_names(e.option, flags(of)[e.option])[0]} {e.fault}") from None


def flag_names(name: str, flag: Flag) -> tuple[str, ...]:
    """The names of an option on the command line, the long one first."""
    return tuple(sorted(flag.names or (f"--{name.replace('_', '-')}",), key=len, reverse=True))


def _typed(name: str, flag: Flag, default: Any) -> tuple[Any, Any]:
    """The annotation of a parameter, for typer, and its default."""
    kind = flag.kind
    described = typer.Option(
        *flag_names(name, flag),
        help=flag.help + _default(default),
        rich_help_panel=flag.group,
        metavar=kind.metavar or None,
        autocompletion=None if kind.completions is none_known else _completing(kind.completions),
        show_default=False,
    )
    if kind is SWITCH:
        return Annotated[bool, described], False
    return Annotated[list[str] | None if kind.many else str | None, described], None


def _completing(completions: Completions) -> Callable[[str], list[str]]:
    """The function that typer calls with the text typed so far, by the name of its parameter."""
    return lambda incomplete: list(completions(incomplete))


def _default(value: Any) -> str:
    """The words of the help on a default, if there is one to speak of."""
    match value:
        case Enum():
            return f" (default: {value.value})"
        case int() | float() if not isinstance(value, bool):
            return f" (default: {value:g})"
    return ""


def _value(flag: Flag, default: Any, given: Any) -> Any:
    """The option's value, as Python calls give it; a text that does not read as one stays as it is."""
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
