"""The messages between front and engine: a line of JSON and the bytes of tensors, over a socket.

A frame on the wire: 4 bytes with the length of its head, 8 with that of its body, both little-endian; the head, which
is JSON; the body, the elements of the tensors one behind the other.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.serving.arrays import Array, nbytes_of

_LENGTHS = struct.Struct("<IQ")


@dataclass(frozen=True)
class EngineMessage:
    """A message: what it is, its fields, and tensors by name."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def packed(self) -> bytes:
        """The bytes on the wire."""
        listed = [[name, array.dtype, array.shape] for name, array in self.arrays.items()]
        head = json.dumps([self.kind, self.fields, listed], separators=(",", ":")).encode()
        bodies = [array.data for array in self.arrays.values()]
        return b"".join((_LENGTHS.pack(len(head), sum(map(len, bodies))), head, *bodies))


async def read_message(reader: asyncio.StreamReader) -> EngineMessage:
    """The next frame.  Raises asyncio.IncompleteReadError or ConnectionError where the other end is gone."""
    head, body = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    return _unpacked(await reader.readexactly(head), await reader.readexactly(body))


def receive_message(connection: socket.socket) -> EngineMessage | None:
    """The next frame; None where the other end is gone.  Its tensors lie in memory that may be written."""
    try:
        head, body = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
        return _unpacked(_exactly(connection, head), _exactly(connection, body))
    except (EOFError, ConnectionError):
        return None


def _unpacked(head: bytes | bytearray, body: bytes | bytearray) -> EngineMessage:
    kind, fields, listed = json.loads(head)
    data, arrays, at = memoryview(body), {}, 0
    for name, dtype, shape in listed:
        end = at + nbytes_of(dtype, shape)
        arrays[name] = Array(dtype, tuple(shape), data[at:end])
        at = end
    return EngineMessage(kind, fields, arrays)


def _exactly(connection: socket.socket, count: int) -> bytearray:
    """So many bytes.  Raises EOFError at the end of the stream."""
    data = bytearray(count)
    left = memoryview(data)
    while left:
        got = connection.recv_into(left)
        if not got:
            raise EOFError
        left = left[got:]
    return data
