"""The flags of `python -m runtime.measure`.  No torch in here, so that help comes at once."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Measure the devices of this host.",
        epilog=f"Example: {prog} -o cluster.toml --devices cuda:0,cuda:1",
    )
    options.add_argument("-o", "--out", metavar="FILE.toml", type=Path, required=True, help="the cluster file to write")
    options.add_argument(
        "--devices",
        metavar="A,B",
        help="such as cuda:0,cuda:1 or cpu,cpu for two shares of the CPU; default: all GPUs, or two shares",
    )
    options.add_argument(
        "--threads", metavar="N", type=_count, help="of each share of the CPU; default: cores / shares"
    )
    return options


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of threads")
    return int(text)
