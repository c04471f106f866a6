"""Functions that are one kernel on GPUs: as they run elsewhere, and the source of their kernels, run by torch."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any
from weakref import ReferenceType, ref

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import ir.fused.fused_kernel
from ir.fused import recorded
from ir.fused.background import Background
from ir.fused.checked_bits import drawn_like, same_bits
from ir.fused.kernel_source import kernel_for
from ir.fused.recorded import NoKernel, TensorAt, steps_of
from ir.fused.row_sums import threads_of_row
from tests.support.artifacts.files_beside import as_in_an_artifact
from tests.support.kernels.fused_functions import FUNCTIONS, cases, gated, normalized, rotated, tensors
from tests.support.kernels.kernels_in_torch import run_in_torch
from tests.support.patience import PATIENCE

fused_kernel = as_in_an_artifact(ir.fused.fused_kernel).fused_kernel
ROUNDED = ("normalized", "summed", "gated", "exp", "sigmoid", "silu", "gelu", "mean", "rsqrt", "div")
"""Functions that torch's kernels for CPUs round otherwise."""


def in_torch(function: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
    """The results of a function's kernel, run by torch."""
    formula = steps_of(function, given)
    dtypes = [formula.steps[i - formula.inputs].dtype for i in formula.returned]
    made = [torch.empty_strided(formula.shape, formula.stride, dtype=dtype) for dtype in dtypes]
    run_in_torch(kernel_for(formula, given), given, made)
    return made


@pytest.mark.parametrize(("name", "layout", "dtype"), cases((torch.bfloat16, torch.float32)))
def test_a_kernel_computes_what_its_function_does(name: str, layout: str, dtype: torch.dtype) -> None:
    given = tensors(name, layout, dtype)
    made, expected = in_torch(FUNCTIONS[name], given), FUNCTIONS[name](*given)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert [(t.shape, t.stride(), t.dtype) for t in made] == [(t.shape, t.stride(), t.dtype) for t in expected]
    for a, b in zip(made, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
        if not name.startswith(ROUNDED):
            assert same_bits([a], [b])


@pytest.mark.parametrize(("name", "layout", "dtype"), cases((torch.bfloat16,)))
def test_of_large_arguments_two_rows_are_recorded(
    monkeypatch: pytest.MonkeyPatch, name: str, layout: str, dtype: torch.dtype
) -> None:
    rows = list[int]()

    def function(*given: Tensor) -> Any:
        rows.append(given[0].numel())
        return FUNCTIONS[name](*given)

    given = tensors(name, layout, dtype)
    monkeypatch.setattr(recorded, "MOST_RUN", 1)
    formula = steps_of(function, given)
    monkeypatch.undo()
    assert formula == steps_of(function, given)
    assert rows[0] < given[0].numel()


def test_a_batch_whose_outermost_rows_are_those_of_columns_is_recorded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_RUN", 1)
    for x, y in [(torch.ones(8, 4).T, torch.ones(4, 1)), (torch.ones(8, 4), torch.ones(8, 4).T.contiguous().T)]:
        formula = steps_of(lambda x, y: x + y, [x, y])
        assert (formula.shape, formula.stride) == (tuple((x + y).shape), (x + y).stride())


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("columns", [128, 132, 896, 3000, 8192, 14336])
def test_a_mean_of_rows(rows: int, columns: int) -> None:
    x = torch.randn(rows, columns)
    (made,) = in_torch(lambda x: x - x.mean(-1, keepdim=True), [x])
    torch.testing.assert_close(made, x - x.mean(-1, keepdim=True))


def test_more_threads_add_up_a_row_where_there_are_fewer_rows() -> None:
    assert [threads_of_row(rows, 4096)[0] for rows in (1, 2, 4, 8, 16, 4096)] == [512, 256, 128, 64, 32, 32]
    assert threads_of_row(4, 256) == (64, 1)
    assert [threads_of_row(rows, 8192) for rows in (2, 8, 2048)] == [(256, 2), (64, 8), (32, 16)]


def test_elsewhere_a_function_runs_as_it_is() -> None:
    given = [t.requires_grad_() for t in tensors("normalized", "rows", torch.float32)]
    function = fused_kernel(normalized)
    assert same_bits([function(*given)], [normalized(*given)])
    found = torch.autograd.grad(function(*given).sum(), given)
    assert same_bits(found, torch.autograd.grad(normalized(*given).sum(), given))
    assert not function.launches


@pytest.mark.parametrize("device", ["xpu", "mps", "meta"])
def test_devices_of_other_kinds_run_a_function_as_it_is(by_torch: Any, device: str) -> None:
    with FakeTensorMode():
        x = torch.empty(2, 8, device=device)
    function = by_torch.fused_kernel(gated)
    with torch.no_grad():
        assert function(x, x).device.type == device
    assert not function.launches


def test_torch_compile_sees_the_operators() -> None:
    given = tensors("rotated", "heads", torch.float32)
    compiled = torch.compile(fused_kernel(rotated), fullgraph=True, backend="eager")
    assert torch.equal(compiled(*given), rotated(*given))


def test_a_function_is_exported_as_its_operators() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return fused_kernel(F.silu)(x) * 2

    exported = torch.export.export(Model(), (torch.ones(3),))
    assert [str(n.target) for n in exported.graph.nodes if n.op == "call_function"] == [
        "aten.silu.default",
        "aten.mul.Tensor",
    ]


def test_one_tensor_may_be_two_arguments() -> None:
    x = torch.ones(2, 4)
    steps = steps_of(lambda a, b: a + b * 2, (x, x)).steps
    assert [step.operands for step in steps] == [(TensorAt(1), 2.0), (TensorAt(0), TensorAt(2))]


def test_recording_needs_no_compiler_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # to import it takes a second
    assert len(steps_of(normalized, tensors("normalized", "rows", torch.bfloat16)).steps) == 8


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "it runs cos.default": (lambda x: x.cos(), (torch.ones(2, 4),)),
    "a tensor is torch.int64 of 1 dimensions": (lambda x: x + 1, (torch.ones(4, dtype=torch.int64),)),
    "a tensor is torch.float32 of 0 dimensions": (lambda x: x + 1, (torch.tensor(1.0),)),
    "its results differ in their shapes or strides": (lambda x: (x + 1, x[:, 1:] + 1), (torch.ones(2, 4),)),
    "it returns an argument": (lambda x: x, (torch.ones(2, 4),)),
    "a slice takes steps": (lambda x: x[:, ::2] + 1, (torch.ones(2, 4),)),
    "a slice is not along the last dimension": (lambda x: x[1:] + 1, (torch.ones(2, 4),)),
    "a mean is not that of rows of float32": (lambda x: x - x.mean(0, keepdim=True), (torch.ones(2, 128),)),
    "a mean is of numbers that do not": (lambda x: x - x.mean(-1, keepdim=True), (torch.ones(128, 2).T,)),
    "a mean is of rows of which torch loads": (
        lambda x: x - x.mean(-1, keepdim=True),
        (torch.ones(2, 130)[:, :128],),
    ),
    "one of several columns is broadcast": (lambda x: x[:, 1:2] * x + 1, (torch.ones(2, 4),)),
    "torch adds up these rows": (lambda x: x - x.mean(-1, keepdim=True), (torch.ones(2, 64),)),
    "torch's gelu has other bits": (F.gelu, (torch.ones(2, 4),)),
    "a power is no square": (lambda x: x**3, (torch.ones(2, 4),)),
    "sub.Tensor has options": (lambda x: torch.sub(x, x, alpha=2), (torch.ones(2, 4),)),
    "a number is not finite": (lambda x: x + float("inf"), (torch.ones(2, 4),)),
    "a number is too large": (lambda x: x / 0, (torch.ones(2, 4),)),
    "the last dimension is not the innermost": (lambda x: x[:, :4] + 1, (torch.ones(8, 4).T,)),
    "results have gaps": (lambda x: (x + 1)[:, :2], (torch.ones(2, 4),)),
    "the columns of an argument": (lambda x, y: x + y, (torch.ones(2, 4), torch.ones(4, 2).T)),
    "a result is the same in all columns": (lambda x: x + 1, (torch.ones(1, 1),)),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_kernel(why: str) -> None:
    function, given = REFUSED[why]
    with pytest.raises(NoKernel, match=re.escape(why)):
        kernel_for(steps_of(function, given), given)


def test_a_slice_that_begins_before_the_first_column() -> None:
    x, y = torch.randn(2, 3, 8)
    assert same_bits(in_torch(lambda x, y: x[:, -500:] * y, [x, y]), [x * y])


def test_functions_are_recorded_in_inference_mode() -> None:
    with torch.inference_mode():
        formula = steps_of(normalized, tensors("normalized", "rows", torch.bfloat16))
    assert [step.name for step in formula.steps] == ["to", "square", "mean", "add", "rsqrt", "mul", "to", "mul"]


def test_drawn_numbers_have_the_layout_of_others() -> None:
    given = [torch.ones(3, 1, 4).expand(3, 2, 4), torch.ones(4, 5, dtype=torch.bfloat16).T]
    sets = list(drawn_like(given, "cpu"))
    assert len(sets) > 3
    for drawn in sets:
        assert [(t.shape, t.stride(), t.dtype) for t in drawn] == [(t.shape, t.stride(), t.dtype) for t in given]
    assert same_bits(next(drawn_like(given, "cpu")), sets[0])


def test_bits_tell_zeros_apart_and_not_what_is_no_number() -> None:
    nothing = torch.tensor([float("nan"), 1.0])
    assert same_bits([nothing], [-nothing.abs() * torch.tensor([1.0, -1.0])])
    assert not same_bits([torch.zeros(1)], [-torch.zeros(1)])
    assert not same_bits([torch.zeros(2, 1)], [torch.zeros(1, 2).T.contiguous().as_strided((2, 1), (1, 2))])


NUMBERS = [1, 2, 3, 4, 5, 8, 16, 32, 64, 65, 127, 128, 256, 512, 1024, 1025, 2047, 2048, 2049, 4096, 6145, 8191]
LOADS, WARP = [1, 2, 3, 2048, 2049, 4096, 6145], [1, 2, 3, 4, 5, 8, 16, 32, 64, 65, 127, 2048, 2049, 4096, 6145]
MET = {
    1: [1, 2048, 2049, 4096, 6145],
    4: WARP,
    64: sorted([64, 65, *LOADS]),
    128: NUMBERS,
    512: sorted([512, 1024, 1025, *WARP]),
    1024: sorted([1024, 1025, *WARP]),
    2048: [2048],
    4096: [2048, 4096],
}
"""Of 2,048 rows `[8192]`, the numbers that torch on an H200 adds to the first one before, or as, it adds this one."""


@pytest.mark.parametrize("last", MET)
def test_the_order_of_a_sum(last: int) -> None:
    """A number is lost beside a large one, and stays where the large one has been taken away before."""
    x = torch.zeros(len(NUMBERS), 8192)
    x[torch.arange(len(NUMBERS)), NUMBERS] = 1.0
    x[:, 0], x[:, last] = 2.0**25, -(2.0**25)
    (made,) = in_torch(lambda x: x * 0 + x.mean(-1, keepdim=True), [x])
    assert [number for number, row in zip(NUMBERS, made, strict=True) if number == last or not row[0]] == MET[last]


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file of artifacts where torch runs the kernels, each for the dtypes that it was compiled for."""
    module = as_in_an_artifact(ir.fused.fused_kernel)
    driver = SimpleNamespace(active=SimpleNamespace(get_current_device=lambda: -1, set_current_device=lambda _: None))
    monkeypatch.setattr(module, "triton", SimpleNamespace(runtime=SimpleNamespace(driver=driver)))
    monkeypatch.setattr(module, "_compiled", lambda kernel, formula, likes, _: (kernel, [t.dtype for t in likes]))

    def launch(formula: Any, kernel: Any, compiled: Any, *_: Any) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Tensor:
            assert compiled[0].source == kernel.source
            assert compiled[1] == [t.dtype for t in tensors]
            made = torch.empty_strided(formula.shape, formula.stride, dtype=formula.steps[-1].dtype)
            run_in_torch(kernel, tensors, [made])
            return made

        return run

    monkeypatch.setattr(module, "_launch", launch)
    return module


def launch_for(by_torch: Any, function: Any, given: list[Tensor], sources: set[Any]) -> Any:
    """The launch for such arguments once their kernel is compiled."""
    by_torch.launch_for(function, given, sources, None)
    by_torch.finish_kernels()
    return by_torch.launch_for(function, given, sources, None)


def test_a_kernel_is_compiled_for_each_dtype(by_torch: Any) -> None:
    def cast(x: Tensor) -> Tensor:
        return x.to(torch.bfloat16) * 2

    sources: set[Any] = set()
    for dtype in (torch.float32, torch.float16):
        x = torch.randn(64).to(dtype)
        launch = launch_for(by_torch, cast, [x], sources)
        assert launch is not cast
        assert torch.equal(launch(x), cast(x))
    assert len({source for _, source, *_ in sources}) == 1  # which reads the same for both
    assert len(sources) == len(by_torch.KERNELS) == 2
    known = launch_for(by_torch, cast, [torch.randn(128)], sources)
    assert known(torch.ones(128)).shape == (128,)
    assert len(by_torch.KERNELS) == 2


def test_a_kernel_with_other_bits_is_not_used(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def negated(x: Tensor) -> Tensor:
        return -x

    monkeypatch.setitem(by_torch.EXPRESSIONS, "neg", "0.0 - {0}")  # of 0, it is 0
    x = torch.ones(64)
    assert launch_for(by_torch, negated, [x], set()) is negated
    assert [*by_torch.KERNELS.values()] == [None]
    assert launch_for(by_torch, negated, [x], set()) is negated


def test_a_negated_view_has_no_kernel(by_torch: Any) -> None:
    """Its memory has the numbers with the other sign."""
    sources: set[Any] = set()
    x = torch.randn(2, 64)
    assert launch_for(by_torch, torch.neg, [x], sources) is not torch.neg
    seen = torch.complex(x, x).conj().imag
    assert seen.is_neg()
    assert launch_for(by_torch, torch.neg, [seen], sources) is torch.neg


def test_a_function_has_so_many_kernels(by_torch: Any) -> None:
    sources: set[Any] = set()
    given = [[torch.ones(2, n), torch.ones(2, 1)] for n in range(8, 8 + by_torch.MOST_KERNELS + 1)]
    *launches, last = (launch_for(by_torch, torch.mul, some, sources) for some in given)
    assert torch.mul not in launches
    assert last is torch.mul
    again = [torch.ones(4, 8), torch.ones(4, 1)]  # for more rows, those that it has go on
    assert launch_for(by_torch, torch.mul, again, sources) is not torch.mul


def test_what_a_compiler_fails_at_is_told_once(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[ReferenceType[Tensor]]()

    def failing(*_: Any) -> None:
        lost = torch.empty(8)
        held.append(ref(lost))
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(by_torch, "_compiled", failing)
    x = torch.ones(2, 64)
    with pytest.warns(UserWarning, match="gated runs as single kernels: RuntimeError: no C compiler"):
        assert launch_for(by_torch, gated, [x, x], set()) is gated
    assert launch_for(by_torch, gated, [x[:1], x[:1]], set()) is gated  # no warning, which would fail
    assert [tensor() for tensor in held] == [None]  # the error keeps nothing of what it was raised over


def test_a_batch_of_other_bits_is_not_kept(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_torch, "drawn_like", lambda *_: ())
    monkeypatch.setitem(by_torch.EXPRESSIONS, "neg", "0.0 - {0}")  # of 0, it is 0
    x = torch.zeros(64)
    batch = ref(x)
    assert launch_for(by_torch, torch.neg, [x], set()) is torch.neg
    del x
    assert batch() is None


def test_a_function_runs_as_it_is_until_its_kernel_is_compiled(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begins, compile_one, ran = Event(), by_torch._compiled, []

    def waiting(*given: Any) -> Any:
        assert begins.wait(PATIENCE)
        return compile_one(*given)

    def counted(x: Tensor, y: Tensor) -> Tensor:
        ran.append(x)
        return x * 2 + y

    monkeypatch.setattr(by_torch, "_compiled", waiting)
    sources: set[Any] = set()
    x = torch.ones(2, 64)
    first = by_torch.launch_for(counted, [x, x], sources, lambda *given: "the kernel")
    del ran[:]
    assert torch.equal(first(x, x), x * 3)
    by_torch.launch_for(counted, [x, x], sources, None)  # for other rows, say, which is no second compilation
    assert len(by_torch.KERNELS) == 0
    assert not by_torch.kernels_are_compiled()
    begins.set()
    by_torch.finish_kernels()
    assert by_torch.kernels_are_compiled()
    assert first(x, x) == "the kernel"
    assert len(by_torch.KERNELS) == 1


def test_numbers_of_a_model_are_compared_too(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(x: Tensor) -> Tensor:
        return x * 2

    monkeypatch.setattr(by_torch, "drawn_like", lambda *_: ())  # which finds no number that differs
    monkeypatch.setitem(by_torch.EXPRESSIONS, "mul", "{0} * {1} + ({0} == 7.0)")
    assert launch_for(by_torch, doubled, [torch.full((64,), 7.0)], set()) is doubled
    assert launch_for(by_torch, doubled, [torch.zeros(64)], set()) is doubled  # whatever comes later


def test_work_in_the_background_is_done_once_and_in_order() -> None:
    done, begins, background = [], Event(), Background()
    background.ask("a", lambda: (begins.wait(PATIENCE), done.append("a")))
    for name in "bab":
        background.ask(name, partial(done.append, name))
    assert not background.is_done()
    begins.set()
    background.finish()
    assert background.is_done()
    assert done == ["a", "b"]
    background.ask("a", partial(done.append, "again"))  # by a thread anew
    background.finish()
    assert done == ["a", "b", "again"]


def test_work_is_done_by_the_next_thread_where_one_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    done, background = [], Background()
    monkeypatch.setattr("threading.Thread.start", no_thread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        background.ask("a", partial(done.append, "a"))
    assert background.is_done()  # nothing that anyone could wait for
    background.finish()
    assert done == []
    monkeypatch.undo()
    background.ask("b", partial(done.append, "b"))
    background.finish()
    assert done == ["a", "b"]


def test_a_process_ends_without_what_has_not_begun() -> None:
    program = """
import threading, time
from ir.fused.background import Background
background, begun = Background(), threading.Event()
background.ask("a", lambda: (begun.set(), time.sleep(0.2), print("a")))
background.ask("b", lambda: print("b"))
begun.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "a\n"


@pytest.mark.parametrize("function", [gated, normalized, rotated])
def test_fewer_rows_are_compared_than_a_batch_has(
    by_torch: Any, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]
) -> None:
    """A batch may fill the memory of a device."""
    rows, columns = (4, 64, 4), 128  # texts, tokens, heads
    x = torch.randn(*rows, columns)
    others = {"gated": [torch.randn(*rows, columns)], "normalized": [torch.randn(columns)]}
    given = [x, *others.get(function.__name__, [torch.randn(1, 64, 1, columns) for _ in range(2)])]
    given = [t.transpose(0, 1) if t.dim() == 4 else t for t in given]  # the texts are the outermost in memory
    drawn: list[list[Tensor]] = []
    monkeypatch.setattr(by_torch, "MOST_DRAWN", x.numel() // 2)
    monkeypatch.setattr(by_torch, "_agree", lambda launch, function, some: drawn.append(some) or True)
    launch = launch_for(by_torch, function, given, set())
    assert launch is not function
    torch.testing.assert_close(launch(*given), function(*given))
    assert drawn[0][0].shape == (64, 2, 4, columns)
    assert torch.equal(drawn[-1][0], given[0][:, :2])  # numbers of the model


def test_all_rows_are_drawn_where_fewer_have_another_kernel(by_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the sums of fewer rows are made in another order."""
    drawn: list[list[Tensor]] = []
    monkeypatch.setattr(by_torch, "MOST_DRAWN", 1)
    monkeypatch.setattr(by_torch, "_agree", lambda launch, function, some: drawn.append(some) or True)
    given = [torch.randn(16, 4096), torch.randn(4096)]
    assert launch_for(by_torch, normalized, given, set()) is not normalized
    assert {tuple(some[0].shape) for some in drawn} == {(16, 4096)}
