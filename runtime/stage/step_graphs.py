"""A pass over the graphs that torch.compile makes of a decoder's steps, for fewer small kernels."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from runtime.manifest.digests import file_hash

_ATEN = torch.ops.aten


@cache
def fewer_kernels() -> Any:
    """The pass as torch.compile's option `post_grad_custom_pre_pass` takes it, with a key for its caches."""
    from torch._inductor.custom_graph_pass import CustomGraphPass  # takes a second to import

    class FewerKernels(CustomGraphPass):
        def __call__(self, graph: Any) -> None:
            take_largest(graph)

        def uuid(self) -> str:
            return file_hash(Path(__file__))

    return FewerKernels()


def take_largest(graph: Any) -> None:
    """Have a sort of which only the first is taken, as greedy texts do, be a maximum: torch's has a dozen kernels."""
    for sort in [node for node in graph.nodes if node.target is _ATEN.topk.default]:
        x, count, dim, is_largest, _ = (*sort.args, *(-1, True, True)[len(sort.args) - 2 :])
        if sort.kwargs or not isinstance(count, int) or count != 1 or is_largest is not True:
            continue
        for one in [*sort.users]:
            with graph.inserting_before(one):
                made = (
                    graph.call_function(_ATEN.argmax.default, (x, dim, True))
                    if one.args[1]
                    else graph.call_function(_ATEN.amax.default, (x, [dim], True))
                )
            made.meta["val"] = one.meta["val"]
            one.replace_all_uses_with(made)
            graph.erase_node(one)
        graph.erase_node(sort)
