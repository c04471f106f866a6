"""Tensors of a batch in flight: what counts as a change, and what does not."""

import weakref

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from runtime.call.untouched import Untouched
from runtime.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int64])
def test_a_slice_of_a_buffer_is_checked_alone(dtype: torch.dtype) -> None:
    for buffer in (
        torch.zeros(4, 3, 50, 60).to(dtype),
        torch.zeros(4, 3, 50, 60).to(memory_format=torch.channels_last).to(dtype),
        torch.zeros(4).to(dtype),
        torch.zeros(60, 4).to(dtype).T,
    ):
        sent = Untouched.of([("x", taken := buffer[1])])
        for other in (0, 2, 3):
            buffer[other].copy_(torch.ones_like(buffer[other], dtype=torch.float32))
        sent.check()
        taken.copy_(torch.ones_like(taken, dtype=torch.float32))
        with_error(sent)


def test_one_element_of_a_buffer_may_have_any_stride() -> None:
    buffer = torch.zeros(10)
    for one in (buffer[3].expand(1), buffer[::4][:1], buffer[1].expand(3)):
        sent = Untouched.of([("x", one)])
        buffer[7] = 1
        sent.check()
        buffer += 1
        with_error(sent)


def test_a_slice_that_holds_nan_is_not_changed() -> None:
    buffer = torch.full((2, 3), float("nan"))
    sent = Untouched.of([("x", _ := buffer[0])])
    buffer[1] = 0
    sent.check()


def test_a_view_of_a_whole_tensor_is_checked_with_it() -> None:
    buffer = torch.zeros(4, 3, requires_grad=True)
    for view in (buffer, buffer.view(3, 4), buffer.detach()):
        sent = Untouched.of([("x", view)])
        with torch.no_grad():
            buffer[0, 0] = 0
        with_error(sent)


def test_a_view_that_nobody_holds_is_checked() -> None:
    buffer = torch.zeros(2, 3)
    for view in (torch.Tensor.detach, lambda whole: whole[:1]):
        sent = Untouched.of([("x", view(buffer))])
        buffer += 1
        with_error(sent)


def test_no_memory_is_held() -> None:
    tensor = torch.zeros(3)
    held, sent = weakref.ref(tensor), Untouched.of([("x", tensor)])
    storage = StorageWeakRef(tensor.untyped_storage())
    del tensor
    assert held() is None
    assert storage.expired()
    sent.check()


def test_tensors_made_in_inference_mode_are_not_checked() -> None:
    with torch.inference_mode():
        tensor = torch.zeros(3)
        sent = Untouched.of([("x", tensor)])
        tensor += 1
        sent.check()


def with_error(sent: Untouched) -> None:
    with pytest.raises(InputError, match="argument `x` was changed in place while its batch was in flight"):
        sent.check()
