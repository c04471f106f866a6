"""The rendezvous of a job: its processes find each other, and each gets a connection to rank 0."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous as torch_rendezvous

from runtime.distributed.control_line import ControlConnection
from runtime.distributed.exit import ReportedByRank0
from runtime.distributed.job_address import JobAddress
from runtime.errors import DistributedError

EXTRA_WAIT = 5.0  # seconds more than rank 0 waits, which knows the missing ranks


@dataclass(frozen=True)
class Peer:
    """A process of the job."""

    rank: int
    host: str
    pid: int
    device: str  # that runs its stages
    domain: str = ""  # equal for processes that can share memory
    tokens: int = 0  # that it wants pools to have room for; 0: as planned

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


@dataclass(frozen=True)
class Rendezvous:
    """All processes of a job, and control connections: from rank 0 to each other rank, or from this one to rank 0."""

    rank: int
    peers: tuple[Peer, ...]
    connections: Mapping[int, ControlConnection]
    store: Store


def rendezvous(at: JobAddress, device: str, names: Sequence[str], timeout: float, tokens: int = 0) -> Rendezvous:
    """Find the other processes of the job.  `device`: that runs this process's stages; `names`: by rank.

    `tokens`: see `Peer`.

    Raises DistributedError with the names of the ranks that do not arrive within `timeout` seconds.  On other
    ranks than 0 that is SystemExit: one message is enough.
    """
    deadline = time.monotonic() + timeout
    store = _store(at, timeout)
    me = Peer(at.rank, socket.gethostname(), os.getpid(), device, _memory_domain(), tokens)
    if at.rank == 0:
        return _receive_all(me, at.host, names, store, deadline, timeout)
    return _join(me, at.host, store, deadline, timeout)


def _memory_domain() -> str:
    """A text that is equal for processes that see the same memory, processes and temporary files."""
    kernel = Path("/proc/sys/kernel/random/boot_id")
    if not kernel.exists():
        return socket.gethostname()
    temporary = os.stat(tempfile.gettempdir())
    return f"{socket.gethostname()} {kernel.read_text().strip()} {temporary.st_dev} {temporary.st_ino}"


def _store(at: JobAddress, timeout: float) -> Store:
    limit, rank = timedelta(seconds=timeout), at.rank
    try:
        if at.by_torchrun:
            store: Store = next(iter(torch_rendezvous("env://", rank, at.world, timeout=limit)))[0]
        else:
            # Without the number of processes, so that who is missing is found, and named, by rank 0 below.
            store = TCPStore(at.host, at.port, None, rank == 0, limit, multi_tenant=True)
        store.set_timeout(limit)
        # The count is the same in all processes, as all open the same pipelines in the same order.
        return PrefixStore(f"stagecut/{store.add(f'stagecut/{rank}', 1)}", store)
    except (RuntimeError, ValueError) as e:
        raise DistributedError(f"rank {rank} cannot reach the store of the job at {at.host}:{at.port}: {e}") from e


def _receive_all(
    me: Peer, host: str, names: Sequence[str], store: Store, deadline: float, timeout: float
) -> Rendezvous:
    key, connections, peers = secrets.token_hex(), dict[int, ControlConnection](), {0: me}
    with socket.create_server((host, 0), backlog=len(names)) as server:
        store.set("address", json.dumps([server.getsockname()[1], key]))
        while len(peers) < len(names):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection = ControlConnection(server.accept()[0])
                hello = connection.receive_one(deadline)
            except TimeoutError:
                for connection in connections.values():
                    connection.send({"peers": []})
                missing = ", ".join(name for rank, name in enumerate(names) if rank not in peers)
                raise DistributedError(f"{missing} did not arrive within {timeout:g} s") from None
            except (EOFError, ValueError):  # not one of the job's processes
                continue
            if secrets.compare_digest(str(hello.pop("key", "")), key):
                peer = Peer(**hello)
                connections[peer.rank], peers[peer.rank] = connection, peer
    ordered = tuple(peer for _, peer in sorted(peers.items()))
    for connection in connections.values():
        connection.send({"peers": [asdict(peer) for peer in ordered]})
    return Rendezvous(0, ordered, connections, store)


def _join(me: Peer, host: str, store: Store, deadline: float, timeout: float) -> Rendezvous:
    try:
        port, key = json.loads(store.get("address"))
        connection = ControlConnection(socket.create_connection((host, port), max(0.01, deadline - time.monotonic())))
        connection.send({**asdict(me), "key": key})
        peers = connection.receive_one(deadline + EXTRA_WAIT)["peers"]
    except (EOFError, OSError, RuntimeError) as e:
        if me.rank == 1:
            raise DistributedError(f"rank 0 did not arrive within {timeout:g} s, or left at once: {e}") from e
        raise ReportedByRank0 from e
    if not peers:  # a rank is missing
        raise ReportedByRank0
    return Rendezvous(me.rank, tuple(Peer(**peer) for peer in peers), {0: connection}, store)
