"""Linear layers over quantized weights: the kernels beside the product with the dequantized weight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ir.quantized_linear import linear

ROWS, COLUMNS, GROUP = 256, 3072, 128
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


def products(scheme: str, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The product as it is made on the device of x, and by plain torch in float64."""
    how = weight(scheme)
    device: dict[str, Any] = {n: v.to(x.device) if isinstance(v, Tensor) else v for n, v in how.items()}
    codes, scale, zeros = device.pop("codes"), device.pop("scale").to(torch.bfloat16), device.pop("zeros", None)
    made = linear.quantized_linear(
        x, [codes], [scale], None if zeros is None else [zeros], None if bias is None else [bias], **device
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


def test_a_triton_of_another_language_has_the_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(Exception):
        pass

    def row_of_words(*_: Any) -> Tensor:
        raise Unknown("async_load has been removed")

    triton = SimpleNamespace(CompilationError=Unknown, __version__="9.9")
    made = {"triton": triton, "gluon": True, "has_kernel": lambda *_: True, "_row_of_words": row_of_words}
    made |= {"_arch": lambda: 90, "_one_row": lambda x, *_: torch.full((1, ROWS), 7.0)}
    for name, value in made.items():
        monkeypatch.setattr(linear, name, value)
    how = weight("words")
    codes, scale = how.pop("codes"), how.pop("scale")
    with pytest.warns(UserWarning, match="triton 9.9 does not compile the kernels for one row: async_load has been"):
        out = linear.quantized_linear(torch.zeros(1, COLUMNS, dtype=torch.bfloat16), [codes], [scale], **how)
    assert out.shape == (1, ROWS)
    assert bool((out == 7).all())
    assert linear.gluon is None  # from now on
    linear.quantized_linear(torch.zeros(1, COLUMNS, dtype=torch.bfloat16), [codes], [scale], **how)


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
@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("scheme", [*AHEAD, "words of small groups", "words of 8 bits"])
def test_few_rows(scheme: str, rows: int) -> None:
    x = torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(0)).cuda()
    for dtype in (torch.bfloat16, torch.float32) if rows == 1 else (torch.bfloat16,):
        made, wanted = products(scheme, x.to(dtype) * 0.1, None)
        assert_near(made, wanted, dtype)
