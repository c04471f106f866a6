"""Packets: messages on a route between two processes, without the data of their tensors."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from runtime.engine.boxes import Boxes
from runtime.engine.message import FinishKernels, Reset
from runtime.processes.blocks import NewBlock

HOST = ""  # the place of tensors in the host's memory; other places are names of devices


@dataclass(frozen=True)
class PackedTensor:
    """A tensor as it lies in a block, dense."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    place: str
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize  # it is dense


@dataclass(frozen=True)
class BatchPacket:
    """A batch.  Its tensors lie in the blocks of a slot."""

    sizes: Mapping[str, int]
    program: int
    tensors: tuple[PackedTensor, ...]
    slot: int | None  # None: there are no tensors
    new: Mapping[str, NewBlock] = field(default_factory=dict)  # blocks of the slot, by place, in place of older ones
    wanted: Mapping[int, Boxes] = field(default_factory=dict)  # see Values


@dataclass(frozen=True)
class FailurePacket:
    """A batch that failed, with its error as `error_codec` encodes it."""

    error: bytes


@dataclass(frozen=True)
class TracePacket:
    """A trace begins, or ends, and these are the runs of the stage that sends it."""

    begins: bool
    runs: bytes = b""


@dataclass(frozen=True)
class SlotTaken:
    """The answer to a batch: its slot may be filled again, once the events of its new blocks have come."""

    slot: int
    events: Mapping[str, bytes] = field(default_factory=dict)


Packet = BatchPacket | FailurePacket | Reset | FinishKernels | TracePacket | SlotTaken


def encode_packet(packet: Packet) -> bytes:
    """A packet as bytes, for a process that this one started, or that started this one."""
    return pickle.dumps(packet)


def decode_packet(data: bytes) -> Packet:
    """The packet that `encode_packet` was given."""
    return pickle.loads(data)
