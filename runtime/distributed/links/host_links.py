"""Connections between processes of a job that run on one host, for the links of `runtime/processes`."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from runtime.distributed.rendezvous import Rendezvous
from runtime.errors import DistributedError
from runtime.processes.message_socket import MessageSocket


def connect_on_host(job: Rendezvous, ends: Mapping[int, tuple[int, int]], timeout: float) -> dict[int, MessageSocket]:
    """This process's end of each link, by the number of its route.

    `ends`: the ranks that send and receive, of the links between two processes of one host.  Every process calls this.
    Raises DistributedError if another does not within `timeout` seconds.
    """
    sending = {route: target for route, (source, target) in ends.items() if source == job.rank}
    receiving = [route for route, (_, target) in ends.items() if target == job.rank]
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory(prefix="stagecut-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "links"
        server.bind(str(path))
        server.listen(len(receiving) + 1)
        job.store.set(f"links/{job.rank}", str(path))
        found = {route: _call(job, route, target) for route, target in sending.items()}
        while len(found) < len(sending) + len(receiving):
            route, end = _accept(server, deadline, timeout)
            found[route] = end
    return found


def _call(job: Rendezvous, route: int, target: int) -> MessageSocket:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(job.store.get(f"links/{target}").decode())
        connection = MessageSocket(end)
        connection.send(str(route).encode())
    except (OSError, RuntimeError) as e:
        end.close()
        raise DistributedError(f"rank {job.rank} cannot reach {job.peers[target]} on its own host: {e}") from e
    return connection


def _accept(server: socket.socket, deadline: float, timeout: float) -> tuple[int, MessageSocket]:
    server.settimeout(max(0.01, deadline - time.monotonic()))
    try:
        end, _ = server.accept()
    except OSError as e:
        raise DistributedError(f"another process of this host did not connect within {timeout:g} s") from e
    end.setblocking(True)
    connection = MessageSocket(end)
    return int(connection.receive()[0]), connection
