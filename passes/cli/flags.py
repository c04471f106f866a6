"""A command gets a flag for each option of each pass."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from passes.cli.terminal import exit_status
from passes.defaults import DEFAULT_PASSES


def with_pass_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each option of each pass, which typer reads off the signature."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = get_type_hints(command, include_extras=True)
    for cls in DEFAULT_PASSES:
        types = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if "help" in field.metadata:
                hints[field.name] = Annotated[types[field.name], typer.Option(help=field.metadata["help"])]
                parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
                own.append(parameter)

    def run(*args: Any, **kwargs: Any) -> None:
        with exit_status():
            command(*args, **kwargs)

    run.__doc__ = command.__doc__
    run.__annotations__ = {p.name: hints[p.name] for p in own}
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own],
        return_annotation=None,
    )
    return run
