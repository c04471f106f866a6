"""Passes, each a function from graph to graph in a file of its own, and the entry points that run them.

In the order in which a model meets them:

    cli/              the command `stagecut`: subcommands, flags, progress, tables, --verify
    compile, report   the same as `python -m passes.compile` and `python -m passes.report`
    options/          every option of all of these, with its flag and its help
    compilation/      one compilation: source -> capture -> passes -> plan -> artifact; the same from Python
    defaults          the passes in their order
    pipeline          what a pass is, and running several with their invariants checked

    fusing/           attention, quantized linear layers, pointwise operators as fused kernels; masks, shared heads
    propagate_shapes  types checked by running each operator without data; views
    follow_rows       the size along which a batch may be split            (rows/: a rule for each operator)
    annotate_cost     flops and bytes of each node                        (cost_models/: costs -> seconds)
    group_shared      nodes that must share a device
    cheap/            mark_cheap: values cheaper to compute again than to send;
                      duplicate_cheap, after the split: such nodes copied into the stages that read them
    split_stages      the stage of each node                              (partitioners/: the best cut)
    check_sizes       the sizes over which that cut stays good
    insert_transfers  a transfer for each value that crosses stages

    cut/              a graph as the partitioners' problem; cuts that the user names
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passes.compilation.api import compile_model as compile_model
    from passes.compilation.auto import auto_partition as auto_partition
    from passes.compilation.compare import compare_machines as compare_machines

_WAYS_IN = {
    "compile_model": "passes.compilation.api",
    "auto_partition": "passes.compilation.auto",
    "compare_machines": "passes.compilation.compare",
}


def __getattr__(name: str) -> Any:
    """A way in is imported when it is asked for: torch takes seconds, for which the command line must not wait."""
    if name not in _WAYS_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WAYS_IN[name]), name)


def __dir__() -> list[str]:
    return list(_WAYS_IN)
