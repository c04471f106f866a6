"""Kernels that torch.compile makes for GPUs from Hopper on, each begun before those before it have ended."""

from __future__ import annotations

from typing import Any

from runtime.stage.linear.few_rows import multiplies_one_row

START = "tl.extra.cuda.gdc_launch_dependents()"  # the next kernel, once all programs of this one have come here
WAIT = "tl.extra.cuda.gdc_wait()"  # until the kernel before has ended, which waited in the same way


def start_early() -> bool:
    """Have such kernels wait before they touch memory, and start the next one beside that; whether torch lets them.

    Torch's own way is to read ahead of the wait what the kernel before does not write.  That is right only if each
    kernel starts the next one behind its own wait, so that one alone can begin ahead of its turn.
    """
    from torch._inductor.codegen.triton import TritonKernel  # takes a second to import

    kernels: Any = TritonKernel
    if not all(hasattr(kernels, name) for name in ("_filter_pdl", "_enable_pdl_codegen", "GDC_WAIT", "GDC_LAUNCH")):
        return False
    kernels._filter_pdl = _filter
    return True


def _filter(kernel: Any, code: Any) -> None:
    """A step of torch with the lines of a kernel's body, which may have several such calls."""
    marks = kernel.GDC_WAIT, kernel.GDC_LAUNCH
    lines = [line for line in code._lines if not (isinstance(line, str) and any(mark in line for mark in marks))]
    code._lines = [*(_beginning() if kernel._enable_pdl_codegen() else ()), *lines]


def _beginning() -> tuple[str, str]:
    """The first lines of a kernel of the graph that torch compiles: for several texts it starts the next one first.

    Then several small kernels begin ahead of their turn.  Beside products of one row that was measured to be slower.
    """
    from torch._inductor.virtualized import V

    compiled: Any = V.graph
    return (WAIT, START) if multiplies_one_row(compiled.graph) else (START, WAIT)
