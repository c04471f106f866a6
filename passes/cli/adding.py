"""`stagecut adapter`: an adapter more for an artifact that keeps some."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from passes.cli.loading import load
from passes.cli.terminal import exit_status


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Add a LoRA adapter to an artifact that keeps some, for the same layers and of at most their rank.",
        epilog=f"Example: {prog} build/voices lora/judge",
    )
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    options.add_argument("adapter", metavar="FOLDER", type=Path, help="the folder that peft saved")
    options.add_argument(
        "--name", default="", help="by which rows and requests choose it (default: that of its folder)"
    )
    return options


def main(argv: Sequence[str] | None = None, prog: str = "stagecut adapter") -> int:
    options = parser(prog).parse_args(argv)
    with exit_status():
        add = load("codegen.artifact.added_adapters", prog).add_adapter
        name = add(options.artifact, options.adapter, options.name)
        print(f"{options.artifact} has the adapter {name} from the next time on that it is loaded")
    return 0
