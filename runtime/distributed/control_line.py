"""A connection between two processes that carries JSON values, apart from the tensors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class Line:
    """A connection to another process that carries JSON values, apart from the tensors."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._partial = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, table: Mapping[str, Any]) -> None:
        """Nothing happens where the other end is gone: `receive` says so."""
        try:
            self.connection.sendall(json.dumps(table).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> list[dict[str, Any]]:
        """What has come, after waiting for something.  Raises EOFError where the other end is gone."""
        *whole, self._partial = (self._partial + self._read(1 << 16)).split(b"\n")
        return [json.loads(line) for line in whole]

    def receive_one(self, deadline: float) -> dict[str, Any]:
        """The next value, and nothing of what follows it, which is for whoever waits on the line.

        Raises EOFError, or TimeoutError after DEADLINE, by time.monotonic.
        """
        text = b""
        while not text.endswith(b"\n"):
            self.connection.settimeout(max(0.01, deadline - time.monotonic()))
            text += self._read(1)
        self.connection.settimeout(None)
        return json.loads(text)

    def hang_up(self, timeout: float) -> None:
        """Say no more; what was said arrives, if the other end listens within TIMEOUT seconds."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        self.wait_gone(timeout)
        self.connection.close()

    def wait_gone(self, timeout: float) -> None:
        """Until the other end has hung up, or for TIMEOUT seconds."""
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
