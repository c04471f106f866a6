"""The flags of `python -m runtime.run`, and those of all command lines that run an artifact.

No torch in here: help, and what the shell completes, come at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Run an artifact on tensors from a file.",
        epilog=f"Example: {prog} build/mine --input x.safetensors --output y.safetensors",
    )
    add_loading_flags(options)
    options.add_argument("--input", type=Path, required=True, help="safetensors file: inputs by their manifest names")
    options.add_argument("--output", type=Path, required=True, help="safetensors file to write the outputs to")
    options.add_argument("--microbatches", metavar="N", type=int, default=1, help="split the batch into N parts")
    options.add_argument("--trace", type=Path, help="write what ran and when, for ui.perfetto.dev")
    return options


def add_loading_flags(options: argparse.ArgumentParser) -> None:
    """The artifact, and the flags of how its stages run."""
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    options.add_argument(
        "--devices",
        metavar="A,B",
        help="as Pipeline.load takes them, or one for each process of a host; default: the plan's",
    )
    options.add_argument("--strict", action="store_true", help="refuse files that differ from the manifest")
    options.add_argument("--compile", action="store_true", help="make the stages faster by torch.compile")
    options.add_argument("--cuda-graphs", action="store_true", help="start all kernels of a stage at once")
    options.add_argument(
        "--processes",
        action=argparse.BooleanOptionalAction,
        help="start a process for each device; default: where that is faster",
    )
    options.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        help="seconds that a stage may take; default: any time, or 300 in several processes",
    )


def seconds(text: str) -> float:
    """A time of a flag, above 0.  Raises ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return found
