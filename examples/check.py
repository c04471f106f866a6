"""Compares the outputs of an artifact with its model's: python examples/check.py MODEL.py OUT"""

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from runtime import Pipeline


def load(path: Path) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The model of a model file, and the arguments of its example call."""
    names = runpy.run_path(str(path))
    model, inputs = names["model"], names["example_inputs"]
    if not isinstance(model, nn.Module):
        model = model()
    if callable(inputs):
        inputs = inputs()
    return (model, (), inputs) if isinstance(inputs, dict) else (model, tuple(inputs), {})


def difference(expected: Any, found: Any) -> str:
    """The difference between two leaves of an output; empty if they are equal."""
    if not isinstance(expected, torch.Tensor):
        return "" if expected == found else f"{found!r} in place of {expected!r}"
    if not isinstance(found, torch.Tensor) or (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{found!r} in place of {expected.dtype}{list(expected.shape)}"
    if torch.equal(expected, found):
        return ""
    return f"off by {(expected.double() - found.double()).abs().max():.2g} at most"


def main(source: Path, out: Path) -> int:
    model, args, kwargs = load(source)
    with torch.no_grad():
        expected = model(*args, **kwargs)
    with Pipeline.load(out) as pipe:
        found = pipe(*args, **kwargs)
    pairs = list(zip(tree_leaves(expected), tree_leaves(found), strict=True))
    wrong = [f"output {i} is {text}" for i, pair in enumerate(pairs) if (text := difference(*pair))]
    if wrong:
        print(f"{out} differs from the uncut model of {source}:", *wrong, sep="\n  ")
        return 1
    print(f"{out} gives what the uncut model of {source} gives, bit for bit")
    print(f"see the cut in {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
