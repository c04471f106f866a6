"""The flags of `python -m runtime.package`.  No torch in here, so that help comes at once."""

from __future__ import annotations

import argparse
from pathlib import Path

SERVERS = ("torchserve", "triton", "ray", "kserve")


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        description="Write what another server needs to run an artifact.",
        epilog=f"Example: {prog} build/bert --for triton -o build/models",
    )
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    options.add_argument("--for", dest="server", choices=SERVERS, required=True, help="the server that will run it")
    options.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder to write to")
    options.add_argument("--force", action="store_true", help="move files of others in the way to FILE.old")
    options.add_argument("--name", metavar="NAME", help="name of the model in requests; default: that of the artifact")
    options.add_argument(
        "--serve-flag",
        metavar="FLAG",
        action="append",
        default=[],
        help="a flag of `stagecut serve` for the engine, such as --serve-flag=--exact; may be repeated",
    )
    return options
