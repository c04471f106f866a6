"""The wire format of one batch on one route.

A header of 64-bit integers, then the tensors as they lie in memory:

    [number of the batch, whether it failed, strides of each tensor …]

The receiver knows the program and the sizes from the control message.  On the host it posts receives for the tensors
together with their header, and receives those of a failed batch, too, to stay in step.  A GPU that waits for the other
end of a transfer is slowed down, so there the header is sent once the tensors are computed, and they are received after
it.
An error follows as text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from runtime.call.input_type import InputType
from runtime.device.copies import DeviceCopies
from runtime.device.streams import made_by_now, read_in
from runtime.distributed.links.error_codec import decode, encode
from runtime.distributed.links.transport import Pending, TensorLink
from runtime.engine.boxes import taken_shape
from runtime.engine.message import Failure, Values
from runtime.errors import StageError


class OutOfStep(Exception):
    """Two processes disagree on the number of the next batch: a bug of ours, which must not give a wrong result."""


@dataclass(frozen=True)
class PostedReceive:
    """A batch whose receives are posted."""

    number: int
    control: Values
    header: Pending
    tensors: Pending | None  # None if they are received after the header


@dataclass(frozen=True)
class RouteCodec:
    """Encodes the batches of a route at one end, and decodes them at the other."""

    source: int | None  # the stage that sends; None: the caller
    types: tuple[tuple[InputType, ...], ...]  # in each program
    headers: TensorLink
    tensors: TensorLink
    texts: TensorLink
    copies: DeviceCopies  # to the device that tensors are sent from and received on
    stream: torch.Stream | None  # the current one of the thread that sends or receives
    ahead: bool  # whether receives of tensors are posted together with their header's
    outputs: tuple[tuple[int, ...], ...] = ()  # of the model that they are, in each program; empty between stages

    def send(self, number: int, message: Values | Failure, control: Values) -> list[Pending]:
        """Start to send a batch.  Tensors of other types than the manifest's are sent as a Failure of their stage.

        `control`: the batch's control message.
        """
        shapes = self._shapes(control)
        if isinstance(message, Values):
            message = self._checked(message, control)
        if isinstance(message, Values):
            arrived, ready = self.copies.bring([tensor.detach() for tensor in message.tensors], message.ready)
            read_in(self.stream, arrived, ready)
            tensors = [dense(tensor) for tensor in arrived]
            header = torch.tensor([number, 0, *(stride for t in tensors for stride in t.stride())])
            flat = [t.as_strided((t.numel(),), (1,)) for t in tensors]
            return [self.headers.send([header]), self.tensors.send(flat)]
        header = torch.tensor([number, 1] + [0] * sum(map(len, shapes)))
        sent = [self.headers.send([header])]
        if self.ahead:
            sent.append(self.tensors.send(self._buffers(control)))
        return [*sent, self.send_text(encode(message.error))]

    def send_text(self, text: bytes) -> Pending:
        """Start to send a text: its length, then its bytes."""
        return self.texts.send([torch.tensor([len(text)]), torch.frombuffer(bytearray(text), dtype=torch.uint8)])

    def receive_text(self) -> bytes:
        """The next text; waits for it.  Raises ConnectionError."""
        (length,) = self.texts.receive([torch.empty(1, dtype=torch.int64)]).wait()
        (text,) = self.texts.receive([torch.empty(int(length), dtype=torch.uint8)]).wait()
        return text.numpy().tobytes()

    def post(self, number: int, control: Values) -> PostedReceive:
        """Post the receives of a batch.  `control`: its control message."""
        header = torch.empty(2 + sum(map(len, self._shapes(control))), dtype=torch.int64)
        coming = self.headers.receive([header])
        return PostedReceive(number, control, coming, self._receive(control) if self.ahead else None)

    def complete(self, posted: PostedReceive) -> Values | Failure:
        """Wait for a batch; on a GPU, its tensors are awaited in the stream.  Raises ConnectionError or OutOfStep."""
        number, failed, *strides = posted.header.wait()[0].tolist()
        if number != posted.number:
            raise OutOfStep(f"batch {number} came where batch {posted.number} was due")
        if failed:
            if posted.tensors is not None:
                posted.tensors.wait()
            return Failure(_stage_error(decode(self.receive_text())))
        flat = (posted.tensors or self._receive(posted.control)).wait()
        left = iter(strides)
        shaped = zip(flat, self._shapes(posted.control), strict=True)
        tensors = tuple(t.as_strided(shape, [next(left) for _ in shape]) for t, shape in shaped)
        return replace(posted.control, tensors=tensors, ready=made_by_now(tensors))

    def _checked(self, message: Values, control: Values) -> Values | Failure:
        types = self.types[control.program]
        for tensor, type, shape in zip(message.tensors, types, self._shapes(control), strict=True):
            if tuple(tensor.shape) != shape or tensor.dtype != type.dtype:
                made = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
                wrong = TypeError(f"it sends `{type.name}` as {made}, the manifest says {type} and {list(shape)}")
                return Failure(StageError(self.source or 0, str(tensor.device), wrong))
        return message

    def _receive(self, control: Values) -> Pending:
        return self.tensors.receive(self._buffers(control))

    def _shapes(self, control: Values) -> list[tuple[int, ...]]:
        shapes = [type.shape(control.sizes) for type in self.types[control.program]]
        if not self.outputs or not control.wanted:
            return shapes
        outputs = zip(shapes, self.outputs[control.program], strict=True)
        return [taken_shape(shape, control.wanted[o]) if o in control.wanted else shape for shape, o in outputs]

    def _buffers(self, control: Values) -> list[torch.Tensor]:
        sized = zip(self.types[control.program], self._shapes(control), strict=True)
        return [torch.empty(math.prod(shape), dtype=type.dtype, device=self.copies.device) for type, shape in sized]


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without gaps, overlaps and lazy bits, as `Tensor.to` copies it between devices.

    Its strides are the same where it is dense, else dense in the same order: views depend on them, and rounding does.
    """
    tensor = tensor.resolve_conj().resolve_neg()
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != expected:
            return tensor.clone()
        expected *= size
    return tensor


def _stage_error(error: Exception) -> StageError:
    assert isinstance(error, StageError)
    return error
