"""Stack traces of recorded nodes, read off the frames that torch keeps of one: those of forwards.

torch itself describes the whole stack for each node, also for placeholders, which keep none, and then leaves out nearly
all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import FrameSummary, StackSummary
from types import FrameType
from typing import Any, TypeAlias
from unittest.mock import patch

from torch import fx
from torch.fx import config, proxy
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

_TORCH = "torch/__init__.py"  # whose functions of sizes torch keeps, too
_ANCHORS: Any = getattr(proxy, "_STACK_TRACE_ANCHORS", set())  # and functions that are registered for it
_UNTRACED = ("placeholder", "output")  # nodes that keep no stack trace

_Line: TypeAlias = tuple[str, int, str]  # file, line, function


@contextmanager
def stack_traces_of_forwards() -> Iterator[None]:
    """Inside the context, the nodes that torch records get the stack traces that it would give them, in less time."""
    create = PythonKeyTracer.create_node
    known: dict[tuple[_Line, ...], str] = {}

    def create_node(tracer: PythonKeyTracer, *args: Any, **kwargs: Any) -> fx.Node:
        node = create(tracer, *args, **kwargs)
        if tracer._record_forward_stack_traces_only and node.op not in _UNTRACED and not node.stack_trace:
            lines = tuple(_kept_lines())
            if lines not in known:
                known[lines] = _trace(tracer, lines)
            if known[lines]:
                node.stack_trace = known[lines]
        return node

    with (
        patch.object(config, "do_not_emit_stack_traces", True, create=True),
        patch.object(PythonKeyTracer, "create_node", create_node),
    ):
        yield


def _kept_lines() -> Iterator[_Line]:
    """The lines of the frames that torch keeps, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        file, name = code.co_filename, code.co_name
        if name == "forward" or file.endswith(_TORCH) or (file, name) in _ANCHORS:
            yield file, frame.f_lineno, name
        frame = frame.f_back


def _trace(tracer: PythonKeyTracer, lines: tuple[_Line, ...]) -> str:
    summary = StackSummary.from_list([FrameSummary(*line) for line in reversed(lines)])
    return "".join(tracer._filter_traceback_frames(summary).format()).strip()
