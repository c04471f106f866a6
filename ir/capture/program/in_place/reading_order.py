"""Notes on in-place operators that read, for one element, memory that they change for another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import fx

from ir.capture.program.in_place.mutation import hint, memory_of, mutates, written_by
from ir.capture.source_lines.where import where_of
from ir.operators.facts import aten, aten_name

_MOST = 1 << 20  # elements whose addresses are compared


def notes_on_order(nodes: Iterable[fx.Node]) -> Iterator[str]:
    """A note on each such operator: what torch computes depends on the order of the elements."""
    for node in filter(mutates, nodes):
        if torch.Tag.pointwise not in node.target.tags and node.target is not aten.copy_.default:  # type: ignore[union-attr]
            continue
        read = [n.meta["val"] for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        if any(_read_elsewhere(changed, other) for changed in written_by(node) for other in read):
            yield (
                f"{aten_name(node.target)}() reads memory that it changes for other elements, in "  # type: ignore[arg-type]
                f"{where_of(node)}: what torch computes depends on their order; stages read all before"
            )


def _read_elsewhere(changed: torch.Tensor, read: torch.Tensor) -> bool:
    """Whether an element of `read` lies where another element of `changed` does, at the sizes of the example."""
    if changed is read or not memory_of([changed]) & memory_of([read]):
        return False
    written, given = _addresses(changed), _addresses(read)
    if written is None or given is None:
        return False
    given = given.broadcast_to(written.shape)
    return bool(((given != written) & torch.isin(given, written)).any())


def _addresses(tensor: torch.Tensor) -> torch.Tensor | None:
    """The place of each element in its storage; None for a large tensor, or where a size depends on values."""
    sizes, steps = ([hint(x) for x in pair] for pair in (tensor.shape, tensor.stride()))
    offset = hint(tensor.storage_offset())
    if offset is None or None in sizes or None in steps or torch.Size(sizes).numel() > _MOST:  # type: ignore[arg-type]
        return None
    found = torch.tensor(offset)
    for size, step in zip(sizes, steps, strict=True):
        found = found[..., None] + step * torch.arange(size)  # type: ignore[arg-type, operator]
    return found
