"""The command line: run an artifact once, on tensors from a file, in one process or in several.

    python -m runtime.run OUT --input x.safetensors --output y.safetensors
    torchrun --nproc-per-node N -m runtime.run OUT --input x.safetensors --output y.safetensors

Rank 0 reads the input, writes the output and reports errors.

Exit status: 0 done, 2 bad input (one message, nothing written), 1 a stage raised, or a process was lost.
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

from runtime.call.tree_nodes import describe_value
from runtime.distributed.bootstrap import TIMEOUT
from runtime.errors import DeviceError, DistributedError, InputError, ManifestError, StageError
from runtime.pipeline import Pipeline


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.run") -> int:
    options = parser(prog).parse_args(argv)
    try:
        outputs = _run(options)
    except (DeviceError, InputError, ManifestError) as e:
        return _fail(str(e), 2)
    except (DistributedError, StageError) as e:
        return _fail(str(e), 1)
    for name, tensor in outputs.items():
        print(f"{name}: {describe_value(tensor)}")
    return 0


def _run(options: argparse.Namespace) -> Mapping[str, torch.Tensor]:
    """The outputs; empty on other ranks than 0."""
    if os.environ.get("RANK", "0") != "0":
        with _load(options):
            return {}
    for path in filter(None, (options.output, options.trace)):
        if not path.absolute().parent.is_dir():
            raise InputError(f"cannot write {path}: {path.parent} is no folder")
    inputs = _read(options.input)
    with _load(options) as pipe, pipe.trace(options.trace):
        outputs = pipe.run_named(inputs, microbatches=options.microbatches)
    # Copies, as a safetensors file can hold neither views nor a tensor twice.
    outputs = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in outputs.items()}
    save_file(outputs, options.output)
    return outputs


def _load(options: argparse.Namespace) -> Pipeline:
    """The pipeline, in as many processes as torchrun started."""
    devices = options.devices.split(",") if options.devices else None
    speed = {"compile": options.compile, "cuda_graphs": options.cuda_graphs}
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Pipeline.load(options.artifact, devices, strict=options.strict, timeout=options.timeout, **speed)
    device = devices[int(os.environ.get("LOCAL_RANK", "0")) % len(devices)] if devices else None
    timeout = options.timeout or TIMEOUT
    return Pipeline.distributed(options.artifact, device, strict=options.strict, timeout=timeout, **speed)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.  Raises InputError."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as e:
        raise InputError(f"cannot read the inputs from {path}: {e}") from e


def parser(prog: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog=prog, description="Run an artifact on tensors from a file.")
    options.add_argument("artifact", metavar="OUT", type=Path, help="the folder that stagecut compile wrote")
    options.add_argument("--input", type=Path, required=True, help="safetensors file: inputs by their manifest names")
    options.add_argument("--output", type=Path, required=True, help="safetensors file to write the outputs to")
    options.add_argument(
        "--devices",
        metavar="A,B",
        help="as Pipeline.load takes them, or one for each process of a host; default: the plan's",
    )
    options.add_argument("--strict", action="store_true", help="refuse files that differ from the manifest")
    options.add_argument("--microbatches", metavar="N", type=int, default=1, help="split the batch into N parts")
    options.add_argument("--compile", action="store_true", help="make the stages faster by torch.compile")
    options.add_argument("--cuda-graphs", action="store_true", help="start all kernels of a stage at once")
    options.add_argument("--trace", type=Path, help="write what ran and when, for ui.perfetto.dev")
    options.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        help="seconds that a stage may take; default: any time, or 300 in several processes",
    )
    return options


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
