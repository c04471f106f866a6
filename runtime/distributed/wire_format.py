"""The tensors of one batch on one route, as what goes over a link.

A header of 64-bit integers and the tensors, as they lie in memory:

    [number of the batch, whether it failed, strides of each tensor …]

The receiver knows the sizes.  On the host it is ready for tensors ahead of their header, and takes in those of
a batch that failed, too, so as to stay in step.  A GPU that sends or receives is slowed down until both ends are
there.  So the header goes when the tensors are made, and they are received once it has come.  What failed follows
as a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from runtime.call.input_type import InputType
from runtime.device.copies import Dock
from runtime.device.streams import made_by_now, read_in
from runtime.distributed.error_codec import decode, encode
from runtime.distributed.transport import Link, Pending
from runtime.engine.message import Failure, Values
from runtime.errors import StageError


class OutOfStep(Exception):
    """Two processes do not agree on which batch is next.  A fault of ours, that must give no wrong result."""


@dataclass(frozen=True)
class Arriving:
    """A batch for which receives are posted."""

    number: int
    shapes: Sequence[tuple[int, ...]]
    header: Pending
    tensors: Pending | None  # None where they are received after the header


@dataclass(frozen=True)
class Packing:
    """How the tensors of a route are packed at one end, and unpacked at the other."""

    source: int | None  # the stage that sends them
    types: tuple[InputType, ...]
    headers: Link
    tensors: Link
    texts: Link
    dock: Dock  # of the device where they are while they are sent and received
    stream: torch.Stream | None  # current in the thread that sends or receives
    ahead: bool  # whether who receives is ready for tensors before they are made, and so before their header

    def send(self, number: int, message: Values | Failure, sizes: Mapping[str, int]) -> list[Pending]:
        """Start to send a batch.  A stage that made something else than the manifest says has failed."""
        shapes = [type.shape(sizes) for type in self.types]
        if isinstance(message, Values):
            message = self._checked(message, shapes)
        if isinstance(message, Values):
            arrived, ready = self.dock.take([tensor.detach() for tensor in message.tensors], message.ready)
            read_in(self.stream, arrived, ready)
            tensors = [_dense(tensor) for tensor in arrived]
            header = torch.tensor([number, 0, *(stride for t in tensors for stride in t.stride())])
            flat = [t.as_strided((t.numel(),), (1,)) for t in tensors]
            return [self.headers.send([header]), self.tensors.send(flat)]
        header = torch.tensor([number, 1] + [0] * sum(map(len, shapes)))
        sent = [self.headers.send([header])]
        if self.ahead:
            sent.append(self.tensors.send(self._buffers(shapes)))
        return [*sent, self.send_text(encode(message.error))]

    def send_text(self, text: bytes) -> Pending:
        """Its length, then the text."""
        return self.texts.send([torch.tensor([len(text)]), torch.frombuffer(bytearray(text), dtype=torch.uint8)])

    def receive_text(self) -> bytes:
        """Wait for the next one."""
        (length,) = self.texts.receive([torch.empty(1, dtype=torch.int64)]).wait()
        (text,) = self.texts.receive([torch.empty(int(length), dtype=torch.uint8)]).wait()
        return text.numpy().tobytes()

    def post(self, number: int, sizes: Mapping[str, int]) -> Arriving:
        """Be ready for a batch."""
        shapes = [type.shape(sizes) for type in self.types]
        header = torch.empty(2 + sum(map(len, shapes)), dtype=torch.int64)
        coming = self.headers.receive([header])
        return Arriving(number, shapes, coming, self._receive(shapes) if self.ahead else None)

    def unpack(self, arriving: Arriving) -> Values | Failure:
        """Wait for a batch; on a GPU, have the stream wait for its tensors.  Raises ConnectionError, or OutOfStep."""
        number, failed, *strides = arriving.header.wait()[0].tolist()
        if number != arriving.number:
            raise OutOfStep(f"batch {number} came where batch {arriving.number} was due")
        if failed:
            if arriving.tensors is not None:
                arriving.tensors.wait()
            return Failure(_stage_error(decode(self.receive_text())))
        flat = (arriving.tensors or self._receive(arriving.shapes)).wait()
        left = iter(strides)
        shaped = zip(flat, arriving.shapes, strict=True)
        tensors = tuple(t.as_strided(shape, [next(left) for _ in shape]) for t, shape in shaped)
        return Values(tensors, ready=made_by_now(tensors))

    def _checked(self, message: Values, shapes: Sequence[tuple[int, ...]]) -> Values | Failure:
        for tensor, type, shape in zip(message.tensors, self.types, shapes, strict=True):
            if tuple(tensor.shape) != shape or tensor.dtype != type.dtype:
                made = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
                wrong = TypeError(f"it sends `{type.name}` as {made}, the manifest says {type} and {list(shape)}")
                return Failure(StageError(self.source or 0, str(tensor.device), wrong))
        return message

    def _receive(self, shapes: Sequence[tuple[int, ...]]) -> Pending:
        return self.tensors.receive(self._buffers(shapes))

    def _buffers(self, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        sized = zip(self.types, shapes, strict=True)
        return [torch.empty(math.prod(shape), dtype=type.dtype, device=self.dock.device) for type, shape in sized]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Without holes, overlaps and lazy bits; with its strides where possible, for kernels round by them."""
    tensor = tensor.resolve_conj().resolve_neg()
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


def _stage_error(error: Exception) -> StageError:
    assert isinstance(error, StageError)
    return error
