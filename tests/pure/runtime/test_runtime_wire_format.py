"""The messages between processes: errors, control messages, and tensors with their strides."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
import torch
from torch import distributed

from runtime import DeviceError, DistributedError, ManifestError, StageError
from runtime.call.input_type import InputType
from runtime.device.copies import DeviceCopies
from runtime.device.placement import spread_stages
from runtime.distributed.control import Control, ControlCodec
from runtime.distributed.links.error_codec import decode, encode
from runtime.distributed.links.transport import Pending, TensorLink, Transport
from runtime.distributed.links.wire_format import OutOfStep, RouteCodec
from runtime.engine.boxes import taken
from runtime.engine.message import Failure, FinishKernels, Reset, SetTrace, Values
from runtime.manifest.manifest import Tensor


@dataclass(frozen=True)
class Loop:
    """A link to itself: what is received must have been sent before."""

    sent: deque[torch.Tensor] = field(default_factory=deque)

    def send(self, tensors: Sequence[torch.Tensor]) -> Pending:
        assert all(t.is_contiguous() for t in tensors)
        self.sent.extend(t.clone() for t in tensors if t.numel())
        return Pending(tensors, [])

    def receive(self, tensors: Sequence[torch.Tensor]) -> Pending:
        for t in tensors:
            if t.numel():
                t.copy_(self.sent.popleft())
        return Pending(tensors, [])


def packing(*shapes: tuple[int | str, ...], dtype: str = "float32", ahead: bool = True) -> RouteCodec:
    types = tuple(InputType.parse(Tensor("h", dtype, shape), ["batch"]) for shape in shapes)
    headers, tensors, texts = (cast(TensorLink, Loop()) for _ in range(3))
    return RouteCodec(1, (types,), headers, tensors, texts, DeviceCopies(torch.device("cpu")), None, ahead)


def through(pack: RouteCodec, message: Values | Failure, batch: int = 2) -> Values | Failure:
    control = Values((), {"batch": batch})
    pack.send(7, message, control)
    return pack.complete(pack.post(7, control))


def layouts() -> Iterator[torch.Tensor]:
    x = torch.randn(2, 3, 4, 5)
    yield x
    yield x.transpose(1, 3)
    yield x.to(memory_format=torch.channels_last)
    yield x[:, 1:2]
    yield x[:, :1].expand(2, 3, 4, 5)
    yield x[1:]
    yield x[:0]
    yield x.permute(3, 2, 1, 0)[:, :, ::2]
    yield torch.tensor(3.0)
    yield torch.zeros(4)[::2]
    yield torch.complex(x, x).conj()
    yield x.requires_grad_() * 2


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("sent", list(layouts()))
def test_tensors_arrive_with_the_strides_that_copies_between_devices_have(sent: torch.Tensor, ahead: bool) -> None:
    pack = packing(tuple(sent.shape), dtype=str(sent.dtype).removeprefix("torch."), ahead=ahead)
    with torch.no_grad():
        got = through(pack, Values((sent,)))
    assert isinstance(got, Values)
    assert torch.equal(got.tensors[0], sent)
    assert got.tensors[0].stride() == torch.empty_like(sent).stride()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    sent = torch.ones(2, 4).to(dtype)
    got = through(packing(("batch", 4), dtype=str(dtype).removeprefix("torch.")), Values((sent,)))
    assert isinstance(got, Values)
    assert torch.equal(got.tensors[0], sent)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_failure_takes_the_place_of_tensors(ahead: bool) -> None:
    pack = packing(("batch", 4), (), ahead=ahead)
    got = through(pack, Failure(StageError(0, "cpu", ValueError("no"))))
    assert isinstance(got, Failure)
    assert str(got.error) == "stage 0 (cpu) raised ValueError: no"
    assert isinstance(got.error.__cause__, ValueError)
    got = through(pack, Values((torch.ones(2, 4), torch.tensor(1.0))))
    assert isinstance(got, Values)


def test_another_size_than_the_manifest_says_is_a_failure() -> None:
    got = through(packing(("batch", 4)), Values((torch.ones(3, 4),)))
    assert isinstance(got, Failure)
    assert "it sends `h` as float32[3, 4], the manifest says float32[batch, 4] and [2, 4]" in str(got.error)


def test_a_batch_out_of_step_is_no_result() -> None:
    pack = packing(("batch", 4))
    control = Values((), {"batch": 2})
    pack.send(6, Values((torch.ones(2, 4),)), control)
    with pytest.raises(OutOfStep, match="batch 6 came where batch 7 was due"):
        pack.complete(pack.post(7, control))


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyError("b"), Odd(1, 2), UnicodeDecodeError("utf8", b"", 0, 1, "c"), TimeoutError("d")]
)
def test_errors_go_over_with_their_class_names(error: Exception) -> None:
    got = decode(encode(StageError(2, "cpu", error)))
    assert isinstance(got, StageError)
    assert str(got) == str(StageError(2, "cpu", error))
    assert (got.stage, got.device, type(got.__cause__).__name__) == (2, "cpu", type(error).__name__)


def test_where_an_error_was_raised_goes_over() -> None:
    try:
        raise ManifestError("bad")
    except ManifestError as e:
        got = decode(encode(e))
    assert isinstance(got, ManifestError)
    assert "test_runtime_wire_format.py" in str(got.__cause__)


def test_control_messages() -> None:
    codec = ControlCodec((("batch", "seq"), ("batch",), ()), lambda: None)  # pyright: ignore[reportArgumentType]
    batches = (Values((), {"batch": 3, "seq": 2**40}), Values((), {"batch": 5}, program=1), Values((), program=2))
    boxes = {0: (), 2: (((0, 2, 1), (4, 5, 1)), ((2, 3, 1), (0, 2**40, 2))), 3: ((),)}
    parts = Values((), {"batch": 5}, program=1, wanted=boxes)
    for control in (*batches, parts, Reset(), FinishKernels(), SetTrace(None)):
        first, *second = codec.encode(cast(Control, control))
        assert [t.shape for t in codec.second(first)] == [t.shape for t in second]
        assert codec.decode(first, *second) == control


def test_of_outputs_only_what_the_caller_wants_goes_over() -> None:
    codec = replace(packing(("batch", 4), ("batch", 4), ("batch",)), outputs=((3, 0, 1),))
    box, other = ((0, 2, 1), (3, 4, 1)), ((1, 2, 1), (0, 4, 2))
    control = Values((), {"batch": 2}, wanted={0: (box, other), 1: ()})
    made = (torch.randn(2, 4), taken(torch.randn(2, 4), control.wanted[0]), torch.empty(0))
    codec.send(7, Values(made), control)
    got = codec.complete(codec.post(7, control))
    assert isinstance(got, Values)
    assert [t.shape for t in got.tensors] == [(2, 4), (4,), (0,)]
    assert all(map(torch.equal, got.tensors, made))


@pytest.mark.parametrize(
    ("planned", "processes", "expected"),
    [
        ("a b c", 3, (0, 1, 2)),
        ("a a a", 3, (0, 1, 2)),
        ("a a a a", 2, (0, 0, 1, 1)),
        ("a b a b", 2, (0, 1, 0, 1)),
        ("a b c d", 2, (0, 0, 1, 1)),
        ("a b c", 1, (0, 0, 0)),
        ("a a b", 2, (0, 0, 1)),
    ],
)
def test_stages_are_spread_over_processes(planned: str, processes: int, expected: tuple[int, ...]) -> None:
    assert spread_stages(planned.split(), processes) == expected


def test_more_processes_than_stages() -> None:
    with pytest.raises(DeviceError, match="got 3 processes for 2 stages; start 2 at most"):
        spread_stages(["cpu", "cpu"], 3)


class Unreachable:
    """Takes the place of NCCL between GPUs that no cable joins."""

    class Options:
        pass

    def __init__(self, *_: object) -> None:
        pass

    def eager_connect_single_device(self, device: torch.device) -> None:
        raise RuntimeError(f"no peer of {device} answers")


def test_gpus_that_cannot_reach_each_other_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "ProcessGroupNCCL", Unreachable, raising=False)
    transport = Transport(distributed.HashStore(), 0, 1, timeout=5.0)
    with pytest.raises(DistributedError, match="the GPUs cannot reach each other: no peer of cuda:0 answers"):
        transport.device_link(1, 0, torch.device("cuda:0"))
