"""`stagecut export`: the weights of an artifact as a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from passes.cli.loading import load
from passes.cli.terminal import exit_status

FORMS = {"safetensors": "files that transformers reads", "dcp": "a folder of torch.distributed.checkpoint"}

_PLAIN = "export an artifact of --quantized dequantize"


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Write the weights of an artifact as a checkpoint, each tensor once, under its name in the model.",
        epilog=f"Example: {prog} build/mine --to safetensors -o build/weights",
    )
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    forms = "; ".join(f"{name}: {what}" for name, what in FORMS.items())
    options.add_argument("--to", choices=[*FORMS], default="safetensors", help=f"{forms} (default: safetensors)")
    options.add_argument("-o", dest="out", metavar="DIR", type=Path, required=True, help="the folder to write")
    options.add_argument("--force", action="store_true", help="move a folder that is in the way to DIR.old")
    return options


def main(argv: Sequence[str] | None = None, prog: str = "stagecut export") -> int:
    options = parser(prog).parse_args(argv)
    with exit_status():
        export = load("codegen.artifact.export", prog)
        count = export.write_checkpoint(options.artifact, options.to, options.out, force=options.force)
        added = export.added_adapters(options.artifact)
        without = f", without the adapters added since it was compiled: {', '.join(added)}" if added else ""
        codes = export.weights_in_codes(options.artifact)
        held = f"; {codes} weights are quantized, under names that no library reads: for others to read, {_PLAIN}"
        print(f"wrote {options.out}: {count} tensors{without}{held if codes else ''}")
    return 0
