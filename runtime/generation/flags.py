"""The flags of `python -m runtime.generation`.  No torch in here, so that help comes at once."""

from __future__ import annotations

import argparse

from runtime.flags import add_loading_flags


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Continue a prompt, token by token as they come.",
        epilog=f'Example: {prog} build/llama "Once upon a time" --max-new-tokens 64',
    )
    add_generation_flags(options)
    return options


def add_generation_flags(options: argparse.ArgumentParser) -> None:
    """The artifact and how its stages run; the prompt, and how it is continued."""
    add_loading_flags(options)
    options.add_argument("prompt", metavar="PROMPT", help="the text to continue; - reads it from the standard input")
    options.add_argument("--chat", action="store_true", help="put it as a user's message, by the chat template")
    options.add_argument("--ids", action="store_true", help="it is token ids, '1 15 27', and so is what is printed")
    options.add_argument("--max-new-tokens", metavar="N", type=int, help="default: as many as the text may have")
    options.add_argument("--temperature", metavar="T", type=float, help="draw from softmax(logits / T)")
    options.add_argument("--top-k", metavar="K", type=int, help="draw from the K likeliest tokens")
    options.add_argument("--top-p", metavar="P", type=float, help="draw from the likeliest that make up P together")
    options.add_argument("--min-p", metavar="P", type=float, help="draw from those P times as likely as the likeliest")
    penalty = "divide the logits of tokens in the text by P"
    options.add_argument("--repetition-penalty", metavar="P", type=float, help=penalty)
    options.add_argument("--seed", metavar="N", type=int, help="draw the same again")
    options.add_argument("--stop", metavar="TEXT", action="append", help="end before this text; may be repeated")
