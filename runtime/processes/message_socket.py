"""A connection between two processes of a host, for messages of bytes and file descriptors."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

_HEAD = struct.Struct("<II")  # bytes of the message, and the number of its file descriptors
_CHUNK = 1 << 16
_DESCRIPTORS = 250  # at most in one system call


class MessageSocket:
    """One end of a stream socket.  Several threads may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = Lock()
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    @classmethod
    def pair(cls) -> tuple[MessageSocket, MessageSocket]:
        """Two connected ends."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(here), cls(there)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> MessageSocket:
        """The end that another process passed on."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For select, and to pass the end on."""
        return self._socket.fileno()

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one message.  Raises ConnectionError if the other end, or this one, is closed."""
        text = _HEAD.pack(len(data), len(descriptors)) + data
        with self._sending:
            try:
                sent = socket.send_fds(self._socket, [text], descriptors) if descriptors else 0
                if sent < len(text):
                    self._socket.sendall(text[sent:] if sent else text)
            except OSError as e:
                raise ConnectionError(str(e)) from e

    def receive(self) -> tuple[bytes, list[int]]:
        """The next message and its file descriptors, which are this process's own.  Raises ConnectionError."""
        self._read(_HEAD.size)
        length, count = _HEAD.unpack_from(self._data)
        self._read(_HEAD.size + length)
        data = bytes(self._data[_HEAD.size : _HEAD.size + length])
        del self._data[: _HEAD.size + length]
        return data, [self._descriptors.popleft() for _ in range(count)]

    def has_message(self) -> bool:
        """Whether `receive` need not wait, or only for the rest of a message."""
        return bool(self._data) or bool(select.select([self._socket], [], [], 0)[0])

    def shut(self) -> None:
        """Wake all threads of both processes that wait for this connection: it is over."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close this process's copy of an end that another process has now."""
        self._socket.close()

    def close(self) -> None:
        """Release this end.  No thread may use it any more."""
        self.shut()
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _read(self, size: int) -> None:
        """Read until `size` bytes are there."""
        while len(self._data) < size:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, _DESCRIPTORS)
            except OSError as e:
                raise ConnectionError(str(e)) from e
            if not data:
                raise ConnectionError("the other process closed the connection")
            self._data += data
            self._descriptors.extend(descriptors)
