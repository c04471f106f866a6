"""Shares of the CPU, measured in as many processes at once, as all stages of a pipeline are busy at once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from runtime.errors import DistributedError
from runtime.measure.device import Numbers, measure_device
from runtime.measure.links import LARGE, SMALL, LinkSpeed
from runtime.measure.timing import ShowProgress

_PATIENCE = 180.0  # seconds for a message from a share


def measure_shares(shares: int, threads: int, say: ShowProgress) -> tuple[Numbers, LinkSpeed | None]:
    """The numbers of one share while all are busy, and the link between two.  Raises DistributedError."""
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory(prefix="stagecut-") as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(shares)]
        processes = [
            context.Process(target=_share, args=(rank, shares, threads, Path(folder, "store"), sender), daemon=True)
            for rank, (_, sender) in enumerate(pipes)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        try:
            answers = _answers([receiver for receiver, _ in pipes], say)
        finally:
            for process in processes:
                process.terminate()
                process.join()
    numbers = [answer["numbers"] for answer in answers]
    return _middle(numbers), answers[0]["link"]


def _answers(receivers: list[Connection], say: ShowProgress) -> list[Any]:
    """The result of each share; texts are progress, which rank 0 sends.  Raises DistributedError."""
    answers: dict[Connection, Any] = {}
    while waiting := [r for r in receivers if r not in answers]:
        ready = wait(waiting, _PATIENCE)
        if not ready:
            raise DistributedError(f"a share of the CPU said nothing for {_PATIENCE:.0f} s")
        for receiver in ready:
            assert isinstance(receiver, Connection)
            try:
                message = receiver.recv()
            except EOFError:
                raise DistributedError("a process that measures a share of the CPU has ended") from None
            if isinstance(message, str):
                say(message)
            else:
                answers[receiver] = message
    return [answers[r] for r in receivers]


def _share(rank: int, shares: int, threads: int, store: Path, sender: Connection) -> None:
    """Measure one share.  Runs in a process of its own."""
    torch.set_num_threads(threads)
    dist.init_process_group(
        "gloo", init_method=store.as_uri(), rank=rank, world_size=shares, timeout=timedelta(seconds=_PATIENCE)
    )
    say: ShowProgress = sender.send if rank == 0 else str
    dist.barrier()
    numbers = measure_device(torch.device("cpu"), say, shares, threads)
    dist.barrier()
    link = None
    if shares > 1:
        say("link between shares of the CPU")
        link = LinkSpeed.from_copies(*(_sent(rank, nbytes) for nbytes in (LARGE, SMALL))) if rank < 2 else None
    dist.barrier()
    sender.send({"numbers": numbers, "link": link})
    dist.destroy_process_group()


def _sent(rank: int, nbytes: int) -> float:
    """Seconds of a message from rank 0 to rank 1: half of a round trip."""
    buffer = torch.zeros(nbytes, dtype=torch.uint8)
    trials: list[float] = []
    for _ in range(20):
        start = time.perf_counter()
        for sends in (rank == 0, rank == 1):
            dist.send(buffer, 1 - rank) if sends else dist.recv(buffer, 1 - rank)
        trials.append((time.perf_counter() - start) / 2)
    return median(trials)


def _middle(tables: list[Numbers]) -> Numbers:
    """The mean of each number."""
    return {key: _mean([table.get(key, tables[0][key]) for table in tables]) for key in tables[0]}


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {key: _mean([value.get(key, values[0][key]) for value in values]) for key in values[0]}
    return values[0] if isinstance(values[0], int) else sum(values) / len(values)
