"""Graph -> Graph, one file a pass; the default passes, in order."""

from passes.annotate_cost import AnnotateCost
from passes.duplicate_cheap import DuplicateCheap
from passes.group_shared import GroupShared
from passes.insert_transfers import InsertTransfers
from passes.mark_cheap import MarkCheap
from passes.propagate_shapes import PropagateShapes
from passes.split_stages import SplitStages

DEFAULT_PASSES = (
    PropagateShapes,
    AnnotateCost,
    GroupShared,
    MarkCheap,
    SplitStages,
    DuplicateCheap,
    InsertTransfers,
)
