"""The command line: run an artifact once, on tensors from a file, in one process or in several.

    python -m runtime.run OUT --input x.safetensors --output y.safetensors
    torchrun --nproc-per-node N -m runtime.run OUT --input x.safetensors --output y.safetensors

Rank 0 reads the input, writes the output and reports errors.

Exit status: 0 done, 2 bad input (one message, nothing written), 1 a stage raised, or a process was lost.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from runtime.call.trees.tree_nodes import describe_value
from runtime.command_line import is_first, loaded, status_of
from runtime.errors import InputError
from runtime.flags import parser
from runtime.output_files import replace_file, require_apart, require_writable


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.run") -> int:
    options = parser(prog).parse_args(argv)
    return status_of(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    """Run, write and say what came out; other ranks than 0 only help."""
    if not is_first():
        with loaded(options):
            return
    for path in filter(None, (options.output, options.trace)):
        require_writable(path)
        require_apart(path, options.artifact, options.input)
    inputs = _read(options.input)
    with loaded(options) as pipe, pipe.trace(options.trace):
        outputs = pipe.run_named(inputs, microbatches=options.microbatches)
    # Copies, as a safetensors file can hold neither views nor a tensor twice.
    outputs = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in outputs.items()}
    replace_file(options.output, lambda path: _write(path, outputs))
    for name, tensor in outputs.items():
        print(f"{name}: {describe_value(tensor)}")


def _write(path: Path, outputs: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file.  Raises OSError."""
    try:
        save_file(outputs, path)
    except SafetensorError as e:
        raise OSError(str(e)) from e


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.  Raises InputError."""
    if path.is_dir():
        raise InputError(f"cannot read the inputs from {path}: it is a folder")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as e:
        raise InputError(f"cannot read the inputs from {path}: {e}") from e


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    sys.exit(main())
