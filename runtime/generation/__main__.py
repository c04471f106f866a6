"""The command line: continue a prompt, token by token as they come.

    python -m runtime.generation OUT "a prompt" --max-new-tokens 64
    torchrun --nproc-per-node N -m runtime.generation OUT "a prompt"

Exit status: as `python -m runtime.run`; 130 where it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from runtime.command_line import is_first, loaded, status_of
from runtime.errors import InputError
from runtime.generation.flags import parser

_OPTIONS = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.generation") -> int:
    return continue_prompt(parser(prog).parse_args(argv))


def continue_prompt(options: argparse.Namespace) -> int:
    """Write what follows a prompt to the standard output; the exit status."""
    return status_of(lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    with loaded(options) as pipe:
        if not is_first():
            return
        prompt = _prompt(options)
        ids = isinstance(prompt, list) and not options.chat
        for step in pipe.generate(prompt, stream=True, **{name: getattr(options, name) for name in _OPTIONS}):
            print(f"{step.token} " if ids else step.text, end="", flush=True)
        print()


def _prompt(options: argparse.Namespace) -> Any:
    """A text, ids or a chat of one message.  Raises InputError."""
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    if options.chat:
        return [{"role": "user", "content": text}]
    if not options.ids:
        return text
    with suppress(ValueError):
        return [int(part) for part in text.replace(",", " ").split()]
    raise InputError(f"{text!r} is no list of token ids, such as '1 15 27'")


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
