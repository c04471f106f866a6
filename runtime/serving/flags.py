"""The flags of `python -m runtime.serve`.  No torch in here, so that help comes at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from runtime.flags import add_loading_flags, seconds


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Answer requests with an artifact, over HTTP, until it is interrupted.",
        epilog=f"Example: {prog} build/bert --port 8000",
    )
    add_serving_flags(options)
    return options


def add_serving_flags(options: argparse.ArgumentParser) -> None:
    """The artifact and how its stages run; where the server listens, who may ask, and how much at once."""
    add_loading_flags(options)
    options.add_argument("--host", default="127.0.0.1", help="address to listen on; default: this machine alone")
    options.add_argument("--port", type=int, default=8000, help="port to listen on; 0: one that is free; default: 8000")
    options.add_argument("--name", help="name of the model in requests; default: that of the artifact")
    options.add_argument("--token-file", metavar="FILE", type=Path, help="requests must bring the token in this file")
    options.add_argument("--no-token", action="store_true", help="let other machines ask without one")
    options.add_argument("--max-queue", metavar="N", type=_count, default=256, help="requests that may wait")
    options.add_argument("--max-rows", metavar="N", type=_count, default=16, help="rows of a batch of several requests")
    options.add_argument(
        "--replicas",
        metavar="N",
        type=_count,
        default=1,
        help="engines to spread requests over, on devices of their own",
    )
    _add_host_flags(options)
    options.add_argument("--exact", action="store_true", help="run each request by itself, bit for bit as the model")
    options.add_argument(
        "--deadline", metavar="S", type=seconds, default=60.0, help="seconds until a request is given up"
    )
    options.add_argument("--max-body", metavar="MIB", type=_count, default=64, help="MiB that a request may have")
    options.add_argument(
        "--drain", metavar="S", type=_whole_seconds, default=30, help="seconds for open requests at the end"
    )


def _add_host_flags(options: argparse.ArgumentParser) -> None:
    """Stages on several hosts: the first one answers requests, and the others join it."""
    options.add_argument("--hosts", metavar="N", type=_count, default=1, help="hosts that share the stages")
    options.add_argument(
        "--meet",
        metavar="ADDRESS",
        help="address of this host for the others, with a port; default: its own, port 29400",
    )
    options.add_argument(
        "--join", metavar="ADDRESS", help="answer no requests, run stages for the host that --meet names"
    )
    options.add_argument(
        "--number", metavar="N", type=_count, default=1, help="number of a host that joins; default: 1"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of 1 or more")
    return int(text)


def _whole_seconds(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number of seconds")
    return int(text)
