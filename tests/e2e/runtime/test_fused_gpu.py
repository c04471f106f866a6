"""Functions as one kernel on CUDA devices: the bits of torch's own kernels, and where a kernel takes no part."""

from __future__ import annotations

import pytest
import torch

from ir.fused.checked_bits import drawn_like, same_bits
from ir.fused.fused_kernel import fused_kernel
from tests.support.kernels.fused_functions import FUNCTIONS, cases, compiled_for, gated, normalized, tensors

pytestmark = pytest.mark.gpu
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "layout", "dtype"), cases(DTYPES))
def test_a_kernel_has_the_bits_of_torch(name: str, layout: str, dtype: torch.dtype) -> None:
    function = fused_kernel(FUNCTIONS[name])
    given = tensors(name, layout, dtype, "cuda")
    assert compiled_for(function, given) is not FUNCTIONS[name]
    for some in (given, *drawn_like(given, "cuda")):
        found, wanted = function(*some), FUNCTIONS[name](*some)
        assert same_bits(*(made if isinstance(made, tuple) else (made,) for made in (found, wanted)))


@torch.inference_mode()
@pytest.mark.parametrize("columns", [128, 4096, 5120, 8192, 14336])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 64, 3000])
def test_a_norm_of_rows_of_any_width(rows: int, columns: int) -> None:
    function = fused_kernel(normalized)
    for seed in range(4):
        draw = torch.Generator("cuda").manual_seed(seed)
        given = [
            torch.randn(*shape, device="cuda", generator=draw).bfloat16() for shape in ((rows, columns), (columns,))
        ]
        assert compiled_for(function, given) is not normalized
        assert same_bits([function(*given)], [normalized(*given)])


def test_functions_run_as_they_are_where_torch_looks_on() -> None:
    function = fused_kernel(gated)
    x, y = (t.requires_grad_() for t in tensors("gated", "rows", torch.float32, "cuda"))
    assert same_bits(torch.autograd.grad(function(x, y).sum(), x), torch.autograd.grad(gated(x, y).sum(), x))
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        function(x, y)
    assert not function.launches
    with torch.no_grad():
        function(x.detach()[..., 1:], y.detach()[..., 1:])
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x, y), gated(x, y))


@torch.inference_mode()
def test_a_graph_has_the_kernel_only_if_it_was_compared_before() -> None:
    function = fused_kernel(gated)
    given = tensors("gated", "rows", torch.bfloat16, "cuda")
    for known in (False, True):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = function(*given)
        graph.replay()
        assert torch.equal(made, gated(*given))
        assert bool(function.launches) is known
        assert compiled_for(function, given) is not gated
