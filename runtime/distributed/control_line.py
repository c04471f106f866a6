"""Control connections: JSON values between two processes, apart from the tensors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class ControlConnection:
    """A TCP connection to another process that carries JSON objects, one a line."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._partial = b""

    def fileno(self) -> int:
        """For select."""
        return self.connection.fileno()

    def send(self, table: Mapping[str, Any]) -> None:
        """Send one object.  Does nothing if the other end is gone: `receive` raises then."""
        try:
            self.connection.sendall(json.dumps(table).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> list[dict[str, Any]]:
        """All objects that have arrived; waits for some data.  Raises EOFError if the other end is gone."""
        *whole, self._partial = (self._partial + self._read(1 << 16)).split(b"\n")
        return [json.loads(line) for line in whole]

    def receive_one(self, deadline: float) -> dict[str, Any]:
        """The next object.  Reads nothing of those that follow, which another thread will receive.

        `deadline`: by time.monotonic.  Raises EOFError, or TimeoutError after the deadline.
        """
        text = b""
        while not text.endswith(b"\n"):
            self.connection.settimeout(max(0.01, deadline - time.monotonic()))
            text += self._read(1)
        self.connection.settimeout(None)
        return json.loads(text)

    def hang_up(self, timeout: float) -> None:
        """Close the connection.  All that was sent arrives if the other end reads it within `timeout` seconds."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.wait_gone(timeout)
        self.connection.close()

    def wait_gone(self, timeout: float) -> None:
        """Wait until the other end has closed the connection, for `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        with suppress(EOFError, TimeoutError):
            while True:
                self.connection.settimeout(max(0.01, deadline - time.monotonic()))
                self._read(1 << 16)

    def _read(self, size: int) -> bytes:
        try:
            data = self.connection.recv(size)
        except TimeoutError:
            raise
        except OSError as e:
            raise EOFError from e
        if not data:
            raise EOFError
        return data
