"""Zeros that take no memory until they are written to."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.capture.kept import store
from ir.graph import Graph
from ir.objects.zeros import copied, is_large_zeros, zeros

MANY = 1 << 23  # numbers, of 32 MB
IN_USE, IN_SWAP = 1 << 56, 1 << 62  # of an entry of Linux's pagemap: a page of this process alone; one on the disk


def written(tensor: torch.Tensor) -> int:
    """The bytes of memory in a tensor's own pages, of which those that were only read have none."""
    address, page = tensor.data_ptr(), os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/pagemap", "rb") as pages:
        pages.seek(address // page * 8)
        entries = array("Q", pages.read(-(-tensor.nbytes // page) * 8))
    return sum(bool(entry & (IN_USE | IN_SWAP)) for entry in entries) * page


class Counter(nn.Module):
    seen: torch.Tensor

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("seen", start, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen[:2] += x
        return self.seen[:2] * 2


def counted(start: torch.Tensor) -> Graph:
    return capture(Counter(start), (torch.ones(2),))


def test_large_zeros_and_their_copies_take_memory_once_they_are_written() -> None:
    tensor = zeros((2, MANY // 2), torch.float32)
    other = copied(tensor)
    assert is_large_zeros(other)
    assert (written(tensor), written(other)) == (0, 0)
    other[1] = 1
    assert not is_large_zeros(other)
    assert written(tensor) == 0
    assert written(other) >= other[1].nbytes
    assert other.sum() == MANY // 2
    assert tensor.sum() == 0


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3),
        torch.zeros(1, 1 << 20, dtype=torch.uint8)[:, 8:],
        torch.full((1 << 18,), -0.0),
        torch.full((1 << 18,), torch.nan),
        torch.zeros(1 << 18, requires_grad=True),
        nn.Parameter(torch.zeros(1 << 18)),
        torch.zeros(1 << 18).expand(2, -1),
        torch.zeros(1 << 18, dtype=torch.complex64).conj().imag,
    ],
)
def test_other_tensors_are_copied_as_they_are(tensor: torch.Tensor) -> None:
    assert not is_large_zeros(tensor)
    assert torch.equal(copied(tensor).isnan(), tensor.isnan())
    assert torch.equal(torch.signbit(copied(tensor)), torch.signbit(tensor))


@pytest.mark.parametrize("place", [0, 3, 1 << 17, -1])
def test_zeros_with_another_number_anywhere_are_not_large_zeros(place: int) -> None:
    tensor = zeros((1 << 18,), torch.uint8)
    assert is_large_zeros(tensor)
    tensor[place] = 1
    assert not is_large_zeros(tensor)


def test_equal_words_that_are_not_zero_are_not_large_zeros() -> None:
    assert not is_large_zeros(torch.ones(1 << 18))


def test_a_conjugate_is_copied_as_it_is() -> None:
    tensor = torch.zeros(1 << 18, dtype=torch.complex64).conj()
    assert not is_large_zeros(tensor)
    assert torch.equal(copied(tensor), tensor)


def test_state_of_large_zeros_is_kept_in_few_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAGECUT_CACHE", str(tmp_path))
    graph = counted(zeros((MANY,), torch.float32))
    store.keep("key", graph)
    assert (store.folder() / "key").stat().st_size < 1 << 16
    again = store.find("key", Graph)
    assert again is not None
    (state,) = again.states
    assert state.data is not None
    assert is_large_zeros(state.data)
    assert state.data.shape == (MANY,)


def test_a_tensor_with_another_number_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAGECUT_CACHE", str(tmp_path))
    start = zeros((MANY // 8,), torch.float32)
    start[-1] = 3
    store.keep("key", start)
    again = store.find("key", torch.Tensor)
    assert again is not None
    assert torch.equal(again, start)
