"""Linear layers over quantized weights, in the file that artifacts have: kernels beside the plain product."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import ir.quantized_linear.linear
from tests.support.artifacts.files_beside import as_in_an_artifact

linear = as_in_an_artifact(ir.quantized_linear.linear)
ROWS, COLUMNS, GROUP = 256, 3072, 128
HOPPER = {"gluon": True, "hopper": True, "has_kernel": lambda *_: True, "architecture": lambda: 90}
AHEAD = ("words", "words with zeros", "words of whole rows", "numbers of channels", "numbers of blocks", "integers")


def drawn(*shape: int) -> Tensor:
    return torch.randint(-(2**31), 2**31, shape, generator=torch.Generator().manual_seed(sum(shape))).to(torch.int32)


def scales(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5


def numbers(dtype: torch.dtype) -> Tensor:
    return torch.randint(-100, 100, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(2)).to(dtype)


def weight(scheme: str) -> dict[str, Any]:
    """The tensors of a weight and how they are read."""
    packed, groups = {"codes": drawn(ROWS, COLUMNS // 8), "bits": 4}, COLUMNS // GROUP
    return {
        "words": {**packed, "scale": scales(ROWS, groups), "lowest": 8, "step": (1, GROUP)},
        "words with zeros": {
            **packed,
            "scale": scales(groups, ROWS).t(),
            "zeros": drawn(ROWS // 8, groups),
            "added": 0x01010101,
            "step": (1, GROUP),
        },
        "words of whole rows": {**packed, "scale": scales(ROWS, 1), "lowest": 8, "step": (1, COLUMNS)},
        "words of small groups": {**packed, "scale": scales(ROWS, COLUMNS // 32), "lowest": 8, "step": (1, 32)},
        "words of 8 bits": {
            "codes": drawn(ROWS, COLUMNS // 4),
            "bits": 8,
            "scale": scales(ROWS, groups),
            "lowest": 128,
            "step": (1, GROUP),
        },
        "numbers of channels": {
            "codes": numbers(torch.float8_e4m3fn),
            "scale": scales(ROWS, 1),
            "step": (1, COLUMNS),
        },
        "numbers of blocks": {
            "codes": numbers(torch.float8_e4m3fn),
            "scale": scales(ROWS // 128, groups),
            "step": (128, GROUP),
        },
        "integers": {"codes": numbers(torch.int8), "scale": scales(1, 1), "step": (ROWS, COLUMNS)},
    }[scheme]


def products(scheme: str, x: Tensor, bias: Tensor | None, ordered: str = "") -> tuple[Tensor, Tensor]:
    """The product as it is made on the device of x, ordered before, and by plain torch in float64."""
    how = weight(scheme)
    device: dict[str, Any] = {n: v.to(x.device) if isinstance(v, Tensor) else v for n, v in how.items()}
    codes, scale, zeros = device.pop("codes"), device.pop("scale").to(torch.bfloat16), device.pop("zeros", None)
    given = linear.columns_in_order(x, ordered, codes.shape[1], how.get("bits", 0))
    options = {**device, "ordered": ordered}
    made = linear.quantized_linear(
        given, [codes], [scale], None if zeros is None else [zeros], None if bias is None else [bias], **options
    )
    exact = linear.dequantized(
        how["codes"], scale.cpu().double(), how.get("zeros"), COLUMNS, how.get("bits", 0), how.get("lowest", 0),
        how.get("added", 0), how["step"], False,
    )  # fmt: skip
    wanted = F.linear(x.cpu().double(), exact.double(), None if bias is None else bias.cpu().double())
    return made.cpu().double(), wanted


def assert_near(made: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    near = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (made - wanted).abs().max() <= near * wanted.abs().max()


def test_tensor_cores_take_rows_of_two_bytes_a_number() -> None:
    how, takes = weight("words"), dict[torch.dtype, bool]()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x = torch.zeros(1, COLUMNS, dtype=dtype)
        takes[dtype] = linear.is_row_of_words(x, how["codes"], how["bits"], how["lowest"], how["step"])
    assert [dtype for dtype, taken in takes.items() if taken] == [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_triton_of_another_language_has_the_other_kernels(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(Exception):
        pass

    def of_words(*_: Any) -> Tensor:
        raise Unknown("async_load has been removed")

    triton = SimpleNamespace(CompilationError=Unknown, __version__="9.9")

    def other(x: Tensor, *_: Any) -> Tensor:
        return torch.full((len(x), ROWS), 7.0)

    made = {"triton": triton, "row_of_words": of_words, "rows_of_words": of_words}
    for name, value in (HOPPER | made | {"one_row": other, "some_rows": other}).items():
        monkeypatch.setattr(linear, name, value)
    how = weight("words")
    x, codes, scale = torch.zeros(rows, COLUMNS, dtype=torch.bfloat16), how.pop("codes"), how.pop("scale")
    which = "the kernels that copy codes ahead" if rows == 1 else "the kernel for several rows"
    with pytest.warns(UserWarning, match=f"9.9 does not compile {which}: async_load has been"):
        out = linear.quantized_linear(x, [codes], [scale], **how)
    assert out.shape == (rows, ROWS)
    assert bool((out == 7).all())
    assert linear.hopper is None  # from now on
    assert (linear.gluon is None) == (rows == 1)
    linear.quantized_linear(x, [codes], [scale], **how)


def test_hopper_takes_rows_whose_codes_come_in_whole_stages() -> None:
    taken = {
        scheme: linear.are_rows_of_words(
            torch.zeros(2, COLUMNS, dtype=torch.bfloat16), how["codes"], how.get("zeros"), how.get("bits", 0),
            how.get("lowest", 0), how["step"],
        )
        for scheme in (*AHEAD, "words of small groups", "words of 8 bits")
        for how in [weight(scheme)]
    }  # fmt: skip
    assert [scheme for scheme, takes in taken.items() if takes] == [*AHEAD[:5]]
    half, codes = torch.zeros(2, COLUMNS, dtype=torch.float16), weight("words")["codes"]
    assert linear.are_rows_of_words(half, codes, None, 4, 8, (1, 128))
    assert linear.are_rows_of_words(half, codes[:64], None, 4, 8, (1, 256))
    assert not linear.are_rows_of_words(half.float(), codes, None, 4, 8, (1, 128))
    assert not linear.are_rows_of_words(half, codes[:48], None, 4, 8, (1, 128))
    assert not linear.are_rows_of_words(half[:, : COLUMNS - 128], codes[:, 16:], None, 4, 8, (1, 128))
    assert not linear.are_rows_of_words(half, codes.t().contiguous().t(), None, 4, 8, (1, 128))


@pytest.mark.parametrize("bits", [4, 0])
def test_columns_in_pieces_are_those_of_sixteen_words_as_threads_have_them(bits: int) -> None:
    width = 128 if bits else 64
    x = torch.arange(4 * width * 2).view(2, 2, 2 * width)
    ordered = linear.columns_in_order(x, "pieces", 0, bits)
    assert torch.equal(linear.as_it_was(ordered, "pieces", 0, bits), x)
    first = ordered[0, 0, :width].tolist()
    if bits:  # pairs are codes of a word that are four apart, of the words 0, 4, 8 and 12, then of 2, 6, 10 and 14
        assert first[:12] == [0, 4, 32, 36, 64, 68, 96, 100, 16, 20, 48, 52]
    else:
        assert first[:12] == [0, 1, 16, 17, 32, 33, 48, 49, 8, 9, 24, 25]
    assert sorted(first) == list(range(width))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 65])
@pytest.mark.parametrize("scheme", ["words with zeros", "numbers of blocks"])
def test_an_ordered_x_has_the_product_of_the_same_x(scheme: str, rows: int) -> None:
    x = torch.randn(rows, COLUMNS)
    for ordered in ("pieces", "words")[: 2 if "words" in scheme else 1]:
        assert torch.equal(products(scheme, x, None, ordered)[0], products(scheme, x, None)[0])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("ordered", ["pieces", "words"])
def test_other_kernels_are_given_an_ordered_x_as_they_take_it(
    rows: int, ordered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Tensor]()

    def other(x: Tensor, *_: Any) -> Tensor:
        given.append(x)
        return x.new_zeros(len(x), ROWS)

    for name, value in ({"gluon": None, "has_kernel": lambda *_: True, "one_row": other, "some_rows": other}).items():
        monkeypatch.setattr(linear, name, value)
    x = torch.randn(rows, COLUMNS)
    products("words", x, None)
    products("words", x, None, ordered)
    assert torch.equal(*given)


def kernel_of_rows(seen: list[dict[str, Any]]) -> Callable[..., Any]:
    """What makes in plain torch what `multiply_rows_of_words` does, given the same."""
    kernel: Any = linear.multiply_rows_of_words
    names = signature(getattr(kernel, "fn", kernel)).parameters  # where there is triton, the kernel has the function

    def launched(grid: tuple[int, int]) -> Callable[..., None]:
        def run(*args: Any, num_warps: int, launch_pdl: bool) -> None:
            k = dict(zip(names, args, strict=True))
            seen.append({**k, "grid": grid})
            bits, columns = 4 * k["FOUR"], k["x"].shape[1]
            codes = k["codes"] if bits else k["codes"].view(torch.float8_e4m3fn)
            least = k["LEAST"] - (0x4300 if k["x"].dtype == torch.bfloat16 else 0x6400)
            step = min(k["STEP"], len(codes)), min(k["GROUP"], columns)
            made = linear.dequantized(
                codes, k["scale"].double(), k["zeros"], columns, bits, least if bits else 0, k["ADDED"], step, False
            )
            x = linear.as_it_was(k["x"], "pieces" if k["ORDERED"] else "", codes.shape[1], bits)
            k["out"].zero_()[0] = F.linear(x.double(), made, k["bias"].double() if k["BIAS"] else None)
            assert (len(x), grid[0] * k["HEIGHT"], k["stages"] * 32) == (k["tall"], *k["codes"].shape)
            assert grid[1] == len(k["out"]) <= k["stages"]
            assert k["TALL"] >= k["tall"]

        return run

    return launched


@pytest.mark.slow
@pytest.mark.parametrize("scheme", AHEAD[:5])
def test_rows_are_given_to_the_kernel_with_their_tile(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Launched:
        def __init__(self, run: Callable[..., Any]) -> None:
            self.run = run

        def __getitem__(self, grid: Any) -> Any:
            return self.run(grid)

    def add_parts(_: Any) -> Callable[..., None]:
        def run(parts: Tensor, bias: Tensor | None, out: Tensor, *_: Any, **__: Any) -> None:
            out.copy_(parts.sum(0) + (0 if bias is None else bias))

        return run

    seen = list[dict[str, Any]]()
    triton = SimpleNamespace(
        CompilationError=ValueError,
        cdiv=lambda a, b: -(-a // b),
        next_power_of_2=lambda n: 1 << (n - 1).bit_length(),
    )
    kernels = {"multiply_rows_of_words": kernel_of_rows(seen), "add_parts": add_parts}
    made = {"triton": triton, "_layout_of_rows": lambda *_: None}
    for name, value in (HOPPER | made | {name: Launched(run) for name, run in kernels.items()}).items():
        monkeypatch.setattr(linear, name, value)
    halves = torch.bfloat16, torch.float16
    for rows, ordered, dtype in (
        (2, "", halves[0]),
        (9, "", halves[1]),
        (33, "words", halves[0]),
        (64, "pieces", halves[1]),
    ):
        near = torch.randn(rows, COLUMNS).to(dtype) * 0.1
        assert_near(*products(scheme, near, torch.ones(ROWS, dtype=dtype), ordered), dtype)
    small = [k["tall"] for k in seen if k["HEIGHT"] == 64]
    assert small == ([2] if "words" in scheme else [2, 9])
    assert len(seen) == 4


@pytest.mark.slow
def test_compiled_rows_come_in_the_order_of_their_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = list[str]()

    def compiled(graph: torch.fx.GraphModule, _: Any) -> Any:
        orders.extend(n.kwargs["ordered"] for n in graph.graph.nodes if "quantized_linear" in str(n.target))
        return graph

    for name, value in (HOPPER | {"architecture": torch.compiler.disable(lambda: 90)}).items():
        monkeypatch.setattr(linear, name, value)
    how = weight("numbers of blocks")
    how |= {name: value.to("meta") for name, value in how.items() if isinstance(value, Tensor)}
    codes, scale = [how.pop("codes")], [how.pop("scale")]
    made = torch.compile(linear.quantized_linear, backend=compiled, fullgraph=True, dynamic=True)
    for rows in (4, 70, 1):
        made(torch.zeros(rows, 1, COLUMNS, dtype=torch.bfloat16, device="meta"), codes, scale, **how)
    assert orders == ["pieces", ""]  # in steps of several texts, however many


def test_rows_are_ordered_for_the_kernel_that_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def order_of(scheme: str, rows: int, **patches: Any) -> str:
        for name, value in (HOPPER | patches).items():
            monkeypatch.setattr(linear, name, value)
        how, x = weight(scheme), torch.zeros(rows, COLUMNS, dtype=torch.bfloat16)
        zeros = [how["zeros"]] if "zeros" in how else None
        return linear.order_for(x, [how["codes"]], zeros, how.get("bits", 0), how.get("lowest", 0), how["step"])

    for scheme in AHEAD[:5]:
        assert order_of(scheme, 1) == ""
        assert order_of(scheme, 4) == "pieces"
    assert order_of("words", 4, architecture=lambda: 80) == "words"
    assert order_of("words", 1, gluon=None) == "words"
    assert order_of("words of small groups", 4) == "words"
    assert order_of("numbers of channels", 4, hopper=None) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", AHEAD)
def test_one_row_by_kernels_that_copy_weights_ahead(
    scheme: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "multiply_row", None)  # the kernel of all others
    x = torch.randn(1, COLUMNS, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    for bias in (None, torch.linspace(-1000, 1000, ROWS).to("cuda", dtype)):
        made, wanted = products(scheme, x * 0.1, bias)
        assert_near(made, wanted, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 2, 16, 65])
@pytest.mark.parametrize("scheme", [*AHEAD, "words of small groups", "words of 8 bits"])
def test_few_rows(scheme: str, rows: int) -> None:
    x = torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(0)).cuda()
    for dtype in (torch.bfloat16, torch.float32) if rows == 1 else (torch.bfloat16,):
        made, wanted = products(scheme, x.to(dtype) * 0.1, None)
        assert_near(made, wanted, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [2, 4, 8, 9, 16, 17, 32, 33, 64])
@pytest.mark.parametrize("scheme", AHEAD[:5])
def test_some_rows_by_the_kernel_that_copies_codes_ahead(
    scheme: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linear.has_wgmma():
        pytest.skip("its instructions are Hopper's")
    monkeypatch.setattr(linear, "multiply_rows", None)  # the kernel of all others
    x = torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.1
    for dtype in (torch.bfloat16, torch.float16) if rows == 17 else (torch.bfloat16,):
        for bias in (None, torch.linspace(-1000, 1000, ROWS).to("cuda", dtype)):
            for ordered in ("", "pieces"):
                made, wanted = products(scheme, x.to("cuda", dtype), bias, ordered)
                assert_near(made, wanted, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [2, 16])
def test_rows_of_a_weight_of_half_a_tile_and_of_few_columns(rows: int) -> None:
    for height, width in ((64, COLUMNS), (192, 256), (48, COLUMNS)):  # the last one by the kernel of all others
        how = weight("words")
        codes, scale = how.pop("codes")[:height, : width // 8], how.pop("scale")[:height, : width // GROUP]
        codes, scale, bias = codes.cuda(), scale.cuda().bfloat16(), torch.linspace(-9, 9, height).cuda().bfloat16()
        x = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
        exact = linear.dequantized(codes, scale.double(), None, width, added=0, wide=False, **how)
        wanted = F.linear(x.double(), exact, bias.double())
        made = linear.quantized_linear(x, [codes], [scale], None, [bias], **how)
        assert_near(made.double(), wanted, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [3, 40])
def test_products_that_begin_before_those_before_them_end(rows: int) -> None:
    how = weight("words")
    codes, scale = how.pop("codes").cuda(), (how.pop("scale") * 0.01).cuda().bfloat16()

    def chain(wait: bool) -> Tensor:
        y = torch.linspace(-1, 1, rows * COLUMNS, device="cuda").view(rows, COLUMNS).bfloat16()
        for _ in range(8):
            y = linear.quantized_linear(y, [codes], [scale], **how).repeat(1, COLUMNS // ROWS)
            if wait:
                torch.cuda.synchronize()
        return y

    slowly, graph = chain(True), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = chain(False)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(made, slowly)
