"""--verify: whether the stages return what the uncut model returns."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from ir.errors import VerifyError
from ir.signature import flatten
from ir.sources import Source, with_values
from runtime import InputError, ManifestError, Pipeline, StageError


def compare(source: Source, folder: Path) -> str:
    """Run the model and its stages on the example inputs.  Returns the verdict.

    Raises VerifyError where they differ.
    """
    with with_values(source.model, source.weights):
        wanted, again = (flatten(_run_uncut(source)) for _ in range(2))
        plain = flatten(_run_uncut(source, fused=False))
    if not all(map(_same, wanted[0], again[0])):
        return "the model is not deterministic: two runs of it differ, so there is nothing to compare with"
    try:
        with Pipeline.load(folder, devices=["cpu"]) as pipe:
            got = flatten(pipe(*source.args, **source.kwargs))
    except (StageError, InputError, ManifestError) as e:
        raise VerifyError(f"the stages do not run: {e}") from e
    if str(got[1]) != str(wanted[1]):
        raise VerifyError(f"the stages return other containers than the model: {got[1]}, not {wanted[1]}")
    fused = zip(wanted[0], plain[0], strict=True)
    rounded = [_rounded(a, b) for a, b in fused]  # outputs that torch's fused layers make otherwise than plain ones
    for i, (a, b) in enumerate(zip(wanted[0], got[0], strict=True)):
        if not _same(a, b) and not (rounded[i] and _close(a, b)):
            raise VerifyError(f"output {i} of the stages differs from the model's{_difference(a, b)}")
    if any(rounded):
        most = max(_distance(a, b) for a, b, r in zip(wanted[0], got[0], rounded, strict=True) if r)
        return f"the stages return what the uncut model returns, within {most:.3g}: its fused layers round otherwise"
    return "the stages return what the uncut model returns, bit for bit"


def _run_uncut(source: Source, fused: bool = True) -> Any:
    """Run the model and put its buffers back; not `fused`, without the layers that torch swaps in for eager modules."""
    args, kwargs = deepcopy((source.args, dict(source.kwargs)))
    before = {name: buffer.clone() for name, buffer in source.model.named_buffers()}
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fused and enabled)
    try:
        with torch.no_grad():
            return source.model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
        for name, buffer in source.model.named_buffers():
            buffer.data.copy_(before[name])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return type(a) is type(b) and a == b


def _rounded(a: Any, b: Any) -> bool:
    """Whether the model's fused layers make a tensor that differs from that of its plain ones."""
    return isinstance(a, torch.Tensor) and not _same(a, b)


def _close(a: torch.Tensor, b: Any) -> bool:
    """Whether two tensors differ by no more than fused layers round."""
    tolerance = 256 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0
    least = tolerance * max(1.0, float(a.abs().max()) if a.numel() else 0.0)
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=least, equal_nan=True)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().nan_to_num().max()) if a.numel() else 0.0


def _difference(a: Any, b: Any) -> str:
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape
    return f" by at most {_distance(a, b):.3g}" if tensors else f": {a!r} and {b!r}"
