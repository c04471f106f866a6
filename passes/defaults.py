"""The default passes, in the order in which they run."""

from __future__ import annotations

import dataclasses
from typing import Any

from passes.annotate_cost import AnnotateCost
from passes.cheap.duplicate_cheap import DuplicateCheap
from passes.cheap.mark_cheap import MarkCheap
from passes.check_sizes import CheckSizes
from passes.follow_rows import FollowRows
from passes.fusing.fuse_attention import FuseAttention
from passes.fusing.fuse_elementwise import FuseElementwise
from passes.fusing.fuse_quantized import FuseQuantized
from passes.fusing.share_heads import ShareHeads
from passes.fusing.simplify_masks import SimplifyMasks
from passes.group_shared import GroupShared
from passes.insert_transfers import InsertTransfers
from passes.pipeline import Pass
from passes.propagate_shapes import PropagateShapes
from passes.split_stages import SplitStages

DEFAULT_PASSES: tuple[type[Any], ...] = (
    SimplifyMasks,
    ShareHeads,
    FuseAttention,
    FuseQuantized,
    FuseElementwise,
    PropagateShapes,
    FollowRows,
    AnnotateCost,
    GroupShared,
    MarkCheap,
    SplitStages,
    CheckSizes,
    DuplicateCheap,
    InsertTransfers,
)


def default_passes(**options: Any) -> tuple[Pass, ...]:
    """The default passes; an option goes to the pass that has a field of that name.  Raises TypeError for others."""
    taken = {field.name for cls in DEFAULT_PASSES for field in dataclasses.fields(cls)}
    for name in options:
        if name not in taken:
            raise TypeError(f"no pass has an option {name!r}; there are {', '.join(sorted(taken))}")
    return tuple(
        cls(**{f.name: options[f.name] for f in dataclasses.fields(cls) if f.name in options}) for cls in DEFAULT_PASSES
    )
