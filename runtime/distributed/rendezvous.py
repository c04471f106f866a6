"""The processes of a job, and how they find each other."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, rendezvous  # pyright: ignore[reportPrivateImportUsage]

from runtime.distributed.control_line import Line
from runtime.errors import DistributedError

PATIENCE = 5.0  # seconds more than rank 0, which knows who is missing


@dataclass(frozen=True)
class Member:
    """A process of the job."""

    rank: int
    host: str
    pid: int
    device: str  # where it runs its stages

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


@dataclass(frozen=True)
class Meeting:
    """All processes of the job, and the line from rank 0 to each, or from this one to rank 0."""

    rank: int
    members: tuple[Member, ...]
    lines: Mapping[int, Line]
    store: Store


def meet(device: str, names: Sequence[str], timeout: float) -> Meeting:
    """Find the other processes that torchrun started, of which each runs its stages on a DEVICE.

    Raises DistributedError with the NAMES of those that do not come within TIMEOUT seconds.  Where rank 0
    raises that, it is SystemExit in the others: one message is enough.
    """
    rank, world = rank_and_world()
    deadline = time.monotonic() + timeout
    store = _store(rank, world, timeout)
    me = Member(rank, socket.gethostname(), os.getpid(), device)
    return _receive_all(me, names, store, deadline, timeout) if rank == 0 else _join(me, store, deadline, timeout)


def rank_and_world() -> tuple[int, int]:
    """Which process this is, of how many.  Raises DistributedError where torchrun did not start it."""
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        raise DistributedError(
            "torchrun starts the processes of a job: torchrun --nproc-per-node N script.py"
        ) from None


def _store(rank: int, world: int, timeout: float) -> Store:
    limit = timedelta(seconds=timeout)
    try:
        store = next(iter(rendezvous("env://", rank, world, timeout=limit)))[0]
        store.set_timeout(limit)
        # The same number in each process, which opens one pipeline after the other as all do.
        return PrefixStore(f"stagecut/{store.add(f'stagecut/{rank}', 1)}", store)
    except (RuntimeError, ValueError) as e:
        raise DistributedError(f"rank {rank} cannot reach the store that torchrun names: {e}") from e


def _receive_all(me: Member, names: Sequence[str], store: Store, deadline: float, timeout: float) -> Meeting:
    key, lines, members = secrets.token_hex(), dict[int, Line](), {0: me}
    with socket.create_server((os.environ["MASTER_ADDR"], 0), backlog=len(names)) as server:
        store.set("line", json.dumps([server.getsockname()[1], key]))
        while len(members) < len(names):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                line = Line(server.accept()[0])
                hello = line.receive_one(deadline)
            except TimeoutError:
                for line in lines.values():
                    line.send({"members": []})
                missing = ", ".join(name for rank, name in enumerate(names) if rank not in members)
                raise DistributedError(f"{missing} did not arrive within {timeout:g} s") from None
            except (EOFError, ValueError):  # a stranger
                continue
            if secrets.compare_digest(str(hello.pop("key", "")), key):
                member = Member(**hello)
                lines[member.rank], members[member.rank] = line, member
    ordered = tuple(member for _, member in sorted(members.items()))
    for line in lines.values():
        line.send({"members": [asdict(member) for member in ordered]})
    return Meeting(0, ordered, lines, store)


def _join(me: Member, store: Store, deadline: float, timeout: float) -> Meeting:
    try:
        port, key = json.loads(store.get("line"))
        line = Line(socket.create_connection((os.environ["MASTER_ADDR"], port), max(0.01, deadline - time.monotonic())))
        line.send({**asdict(me), "key": key})
        members = line.receive_one(deadline + PATIENCE)["members"]
    except (EOFError, OSError, RuntimeError) as e:
        if me.rank == 1:
            raise DistributedError(f"rank 0 did not arrive within {timeout:g} s, or left at once: {e}") from e
        sys.exit(1)
    if not members:
        sys.exit(1)  # somebody is missing, and rank 0 says who
    return Meeting(me.rank, tuple(Member(**member) for member in members), {0: line}, store)
