"""A served artifact on the GPUs of a host, without its HTTP front: `python -m tests.benchmarks.gpu.served`.

Processes of a stage are killed and stopped while 16 requests are in flight: none may be lost, and only that process is
started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from runtime.serving.arrays import Array
from runtime.serving.engines.tensors import array_of, tensor_of
from runtime.serving.served_model import ServedModel
from tests.support.artifacts.by_hand import Part, tensor, write

CLIENTS, WIDTH = 16, 4


def artifact(folder: Path) -> Path:
    """y = x + the number of GPUs, in a stage for each."""
    count = torch.cuda.device_count()
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    parts = []
    for i in range(count):
        sends: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
        sends = {names[i + 1]: ((i + 1,), ())} if i + 1 < count else {"y": ((), (0,))}
        parts.append(Part(f"return ({names[i]} + 1,)", {names[i]: i - 1 if i else None}, sends, device=f"cuda:{i}"))
    return write(folder, parts, inputs=(tensor("x", "batch", WIDTH),))


async def ask(model: ServedModel, ends: asyncio.Event, number: int, seen: dict[str, int]) -> None:
    value = float(number)
    while not ends.is_set():
        value += CLIENTS
        given: dict[str, Array] = {"x": array_of(torch.full((1, WIDTH), value))}
        try:
            [y] = (await model.answer(given)).values()
        except Exception as e:
            print(f"  lost: {type(e).__name__}: {e}", flush=True)
            seen["lost"] += 1
            continue
        seen["right" if (tensor_of(y) == value + torch.cuda.device_count()).all() else "wrong"] += 1


async def run(folder: Path) -> None:
    model = ServedModel(folder, [[str(folder)]])
    model.start()
    began = time.monotonic()
    while not model.is_ready:
        await asyncio.sleep(0.05)
    print(f"ready after {time.monotonic() - began:.1f} s", flush=True)
    ends, seen = asyncio.Event(), {"right": 0, "wrong": 0, "lost": 0}
    clients = [asyncio.ensure_future(ask(model, ends, n, seen)) for n in range(CLIENTS)]
    [*model.stages()]
    await asyncio.sleep(6)
    for engine, stage, load in model.stages():
        print(f"  engine {engine}, stage {stage}: {load}", flush=True)
    for sent in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
        engine = psutil.Process(model.supervisors[0].pid)
        victim = engine.children()[-1]
        began = time.monotonic()
        os.kill(victim.pid, sent)
        while model.is_ready:
            await asyncio.sleep(0.01)
        noticed = time.monotonic() - began
        while not model.is_ready:
            await asyncio.sleep(0.01)
        same = model.supervisors[0].pid == engine.pid
        back = time.monotonic() - began
        print(
            f"{sent.name}: known after {noticed:.2f} s, back after {back:.1f} s, same engine {same}, {seen}", flush=True
        )
        await asyncio.sleep(2)
    ends.set()
    await asyncio.gather(*clients)
    print(seen, flush=True)
    await model.stop()


def main() -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(run(artifact(Path(folder) / "model")))


if __name__ == "__main__":
    main()
