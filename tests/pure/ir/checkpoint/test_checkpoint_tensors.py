"""Tensors on disk: pieces read as the real tensors, whatever was done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.rearranged import Computed, Rearranged
from ir.checkpoint.tensors import BLOCK_ELEMENTS, Held, Stored, read_into
from ir.errors import SourceError

Move = Callable[[torch.Tensor], torch.Tensor]
SHAPE = (4, 6, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


def store(folder: Path, tensor: torch.Tensor, name: str = "x", lead: int = 3) -> Stored:
    """Write a tensor into a file of its own, behind some other bytes."""
    file = folder / name
    file.write_bytes(b"?" * lead + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return Stored.whole(file, lead, tensor.dtype, tensor.shape)


def moves() -> st.SearchStrategy[Move]:
    """What a conversion does to a tensor: each keeps or changes its shape, and asks nothing of it."""
    dims = st.integers(-2, 1)
    return st.one_of(
        st.builds(lambda a, b: lambda x: x.transpose(a, b), dims, dims),
        st.builds(lambda a, b: lambda x: x.transpose(a, b).contiguous(), dims, dims),
        st.builds(lambda d: lambda x: torch.cat([x, x], d), dims),
        st.builds(lambda d: lambda x: torch.stack([x, x], d), dims),
        st.builds(lambda d, i: lambda x: torch.chunk(x, 2, d)[-i:][0].clone(), dims, st.integers(0, 1)),
        st.builds(lambda: lambda x: x.reshape(x.shape[0], -1)),
        st.builds(lambda: lambda x: x.to(torch.float64)),
        st.builds(lambda: lambda x: x.flip(0)),  # no rearrangement that pieces can say: computed
        st.builds(lambda: lambda x: x.contiguous().mul_(2)),
    )


@settings(deadline=None)  # the first is slow
@given(st.lists(moves(), max_size=5))
def test_what_is_rearranged_reads_as_the_real_tensor(folder: Path, steps: list[Move]) -> None:
    real = torch.arange(48.0).reshape(SHAPE)
    stand_in: torch.Tensor = Rearranged.standing_for(store(folder, real))
    for step in steps:
        real, stand_in = step(real.clone()), step(stand_in)
    assert isinstance(stand_in, Rearranged)
    assert stand_in.source.shape == stand_in.shape == real.shape
    assert stand_in.dtype == real.dtype
    assert torch.equal(stand_in.source.read(real.dtype), real)
    assert torch.equal(torch.cat(list(stand_in.source.blocks(real.dtype))), real.flatten())


def test_experts_are_pieces_that_are_read_in_order(folder: Path) -> None:
    gate, up = ([torch.randn(3, 2) for _ in range(4)] for _ in "ab")
    stored = [[store(folder, t, f"{i}.{j}") for j, t in enumerate(ts)] for i, ts in enumerate((gate, up))]
    stand_ins = [list(map(Rearranged.standing_for, ts)) for ts in stored]
    merged = torch.cat([torch.stack(ts, 0) for ts in stand_ins], 1)
    assert isinstance(merged, Rearranged)
    assert isinstance(merged.source, Stored)
    assert [p.file.name for p in merged.source.pieces] == [f"{i}.{j}" for j in range(4) for i in range(2)]
    blocks = list(merged.source.blocks(torch.float32))
    assert [b.numel() for b in blocks] == [6] * 8
    assert torch.equal(torch.cat(blocks), torch.cat([torch.stack(gate), torch.stack(up)], 1).flatten())


def test_a_large_tensor_is_read_in_blocks(folder: Path) -> None:
    tensor = torch.arange(2 * BLOCK_ELEMENTS + 5, dtype=torch.int32)
    blocks = list(store(folder, tensor).blocks(torch.int64))
    assert [b.numel() for b in blocks] == [BLOCK_ELEMENTS, BLOCK_ELEMENTS, 5]
    assert torch.equal(torch.cat(blocks), tensor.long())


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.int64])
def test_odd_shapes_and_dtypes(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.ones(shape).to(dtype)
    stored = store(folder, tensor)
    assert torch.equal(stored.read(dtype).to(torch.complex64), tensor.to(torch.complex64))
    assert stored.dtype == dtype
    assert sum(b.numel() for b in stored.blocks(dtype)) == tensor.numel()


def test_strided_bytes_are_read_as_they_are_meant(folder: Path) -> None:
    file = store(folder, torch.arange(12.0)).pieces[0].file
    stored = Stored.whole(file, 3, torch.float32, (4, 3), (1, 4))
    assert torch.equal(stored.read(torch.float32), torch.arange(12.0).reshape(3, 4).t())
    assert torch.equal(next(iter(stored.blocks(torch.float32))), torch.arange(12.0).reshape(3, 4).t().flatten())


@pytest.mark.parametrize("change", [torch.imag, torch.resolve_neg, lambda t: t[1:].imag])
def test_the_negative_and_the_conjugate_bit_are_read(folder: Path, change: Move) -> None:
    tensor = change(torch.randn(4, dtype=torch.complex64).conj())
    torch.save({"w": tensor}, folder / "bits.pt")
    stored = read_checkpoint(folder / "bits.pt")[""]["w"]
    assert torch.equal(stored.read(tensor.dtype), tensor.resolve_neg().resolve_conj())
    assert torch.equal(next(iter(stored.blocks(tensor.dtype))), tensor.resolve_neg().resolve_conj())
    assert not stored.is_as_stored


def test_equal_tensors_are_known_without_reading(folder: Path) -> None:
    a, b = (store(folder, torch.ones(3), name) for name in "ab")
    assert torch.equal(Rearranged.standing_for(a), Rearranged.standing_for(a))
    assert torch.equal(Rearranged.standing_for(a), Rearranged.standing_for(b))
    assert not torch.equal(Rearranged.standing_for(a), Rearranged.standing_for(store(folder, torch.zeros(3), "c")))


def test_values_meet_tensors_in_memory(folder: Path) -> None:
    stored = Rearranged.standing_for(store(folder, torch.ones(3)))
    total = stored + torch.arange(3.0)
    assert isinstance(total, Rearranged)
    assert isinstance(total.source, Computed)
    assert torch.equal(total.source.read(torch.float64), torch.tensor([1.0, 2.0, 3.0]).double())
    assert torch.equal(torch.zeros(3).copy_(stored), torch.ones(3))
    assert torch.equal(next(Held(torch.ones(2, 2).t()).blocks(torch.int32)), torch.ones(4, dtype=torch.int32))


def test_a_file_that_shrank_or_went(folder: Path) -> None:
    stored = store(folder, torch.ones(3))
    with pytest.raises(SourceError, match=r"x ended 2 bytes too early: it changed while it was read"):
        read_into(folder / "x", 5, torch.empty(3))
    (folder / "x").unlink()
    with pytest.raises(SourceError, match=r"cannot read .*x: No such file or directory"):
        stored.read(torch.float32)
