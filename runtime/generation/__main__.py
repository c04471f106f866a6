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

from runtime.command_line import add_loading_flags, is_first, loaded, status_of
from runtime.errors import InputError

_OPTIONS = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop")


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.generation") -> int:
    options = parser(prog).parse_args(argv)
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


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog=prog, description="Continue a prompt, token by token as they come.")
    add_loading_flags(options)
    options.add_argument("prompt", metavar="PROMPT", help="the text to continue; - reads it from the standard input")
    options.add_argument("--chat", action="store_true", help="put it as a user's message, by the chat template")
    options.add_argument("--ids", action="store_true", help="it is token ids, '1 15 27', and so is what is printed")
    options.add_argument("--max-new-tokens", metavar="N", type=int, help="default: as many as the text may have")
    options.add_argument("--temperature", metavar="T", type=float, help="draw from softmax(logits / T)")
    options.add_argument("--top-k", metavar="K", type=int, help="draw from the K likeliest tokens")
    options.add_argument("--top-p", metavar="P", type=float, help="draw from the likeliest that make up P together")
    options.add_argument("--min-p", metavar="P", type=float, help="draw from those P times as likely as the likeliest")
    options.add_argument("--seed", metavar="N", type=int, help="draw the same again")
    options.add_argument("--stop", metavar="TEXT", action="append", help="end before this text; may be repeated")
    return options


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
