"""The command line: run an artifact once, on tensors from a file.

    python -m runtime.run OUT --input x.safetensors --output y.safetensors

Exit status: 0 done, 2 bad input (one message, nothing written), 1 a stage raised.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from runtime.errors import DeviceError, InputError, StageError
from runtime.manifest import ManifestError
from runtime.nodes import describe
from runtime.pipeline import Pipeline


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        outputs = _run(options)
    except (DeviceError, InputError, ManifestError) as e:
        return _fail(str(e), 2)
    except StageError as e:
        return _fail(str(e), 1)
    for name, tensor in outputs.items():
        print(f"{name}: {describe(tensor)}")
    return 0


def _run(options: argparse.Namespace) -> Mapping[str, torch.Tensor]:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("all stages run in one process here; start it with `python -m runtime.run`, not torchrun")
    for path in filter(None, (options.output, options.trace)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"cannot write {path}: {path.parent} is no folder")
    inputs = _read(options.input)
    devices = options.devices.split(",") if options.devices else None
    strict, timeout = options.strict, options.timeout
    with Pipeline.load(options.artifact, devices, strict=strict, timeout=timeout) as pipe, pipe.trace(options.trace):
        outputs = pipe.run_named(inputs, microbatches=options.microbatches)
    # Copies: a file holds no views, and no tensor twice.
    outputs = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in outputs.items()}
    save_file(outputs, options.output)
    return outputs


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as e:
        raise InputError(f"cannot read the inputs from {path}: {e}") from e


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.run", description="Run an artifact on tensors from a file."
    )
    parser.add_argument("artifact", metavar="OUT", type=Path, help="the folder that passes.compile wrote")
    parser.add_argument("--input", type=Path, required=True, help="safetensors file: inputs by their manifest names")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write the outputs to")
    parser.add_argument("--devices", metavar="A,B", help="as Pipeline.load takes them; default: the plan's")
    parser.add_argument("--strict", action="store_true", help="refuse files that differ from the manifest")
    parser.add_argument("--microbatches", metavar="N", type=int, default=1, help="split the batch into N parts")
    parser.add_argument("--trace", type=Path, help="write what ran and when, for ui.perfetto.dev")
    parser.add_argument(
        "--timeout", metavar="S", type=_seconds, help="seconds that a stage may take; default: any time"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return seconds


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
