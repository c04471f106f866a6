"""A served artifact whose processes are killed and stopped, one that is asked for too much, and one that ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.running.serving import Served, serving

ROUNDS, CLIENTS = 20, 24
OVERLOAD = 60.0  # seconds
SLEEP = 0.05  # seconds a batch takes in each stage
CAPACITY, QUEUE = 10, 32  # of a server that is asked for too much: requests a second, and how many may wait
TIMES, PAUSE = 13, 0.8  # that it is asked for in vain, and seconds until a client that was refused asks again


def artifact(folder: Path, seconds: float) -> Path:
    wait = f"time.sleep({seconds})\n" if seconds else ""
    first = Part(f"{wait}return (x + 1,)", {"x": None}, {"h": ((1,), ())})
    second = Part(f"{wait}return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    return write(folder, [first, second], inputs=(tensor("x", "batch", 4),))


@dataclass
class Load:
    """What clients saw: answers by status, those that were wrong or never came, and seconds by status.

    A refusal is wrong that does not say when to come again.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def note(self, value: float, answer: http.client.HTTPResponse, body: bytes, seconds: float) -> None:
        status = answer.status
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)
        if status == 200:
            self.wrong += json.loads(body)["outputs"][0]["data"] != [(value + 1) * 2] * 4
        elif status == 429:
            self.wrong += not answer.headers.get("retry-after", "").isdecimal()


@contextmanager
def under_load(server: Served, clients: int, pause: float = 0.0) -> Iterator[Load]:
    """Clients that ask one request after another, until the block ends."""
    load, ends, host = Load(), threading.Event(), server.url.removeprefix("http://")

    def client(number: int) -> None:
        value = float(number)
        with closing(http.client.HTTPConnection(host, timeout=90)) as connection:
            while not ends.is_set():
                value += clients
                entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
                began = time.perf_counter()
                try:
                    connection.request("POST", "/v2/models/model/infer", json.dumps({"inputs": [entry]}))
                    answer = connection.getresponse()
                    load.note(value, answer, answer.read(), time.perf_counter() - began)
                except ConnectionRefusedError:  # the server has ended: it takes no more
                    return
                except (OSError, http.client.HTTPException):
                    load.lost += 1
                    return
                ends.wait(pause if answer.status != 200 else 0.0)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    yield load
    ends.set()
    for thread in threads:
        thread.join()


def test_nothing_is_lost_in_twenty_rounds(tmp_path: Path) -> None:
    with serving(artifact(tmp_path / "model", 0.005), "--processes", "--exact") as server:
        noticed: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
        back: list[float] = []
        with under_load(server, CLIENTS) as load:
            loading = server.wait()
            for number in range(ROUNDS):
                sent = (signal.SIGKILL, signal.SIGSTOP)[number % 2]
                engine = server.engine()
                victim = [engine, *engine.children()][number // 2 % 3]
                time.sleep(0.5)
                began = time.monotonic()
                victim.send_signal(sent)
                server.wait(ready=False)
                noticed[sent].append(time.monotonic() - began)
                server.wait()
                back.append(time.monotonic() - began - noticed[sent][-1])
        print(f"\n{ROUNDS} rounds, {CLIENTS} clients: {dict(load.statuses)}, lost {load.lost}, wrong {load.wrong}")
        most = {sent.name: round(max(noticed[sent]), 2) for sent in (signal.SIGKILL, signal.SIGSTOP)}
        print(f"503 after at most (seconds): {most}")
        print(f"back after {median(back):.1f} s, {max(back):.1f} s at most; loading took {loading:.1f} s")
        assert (load.lost, load.wrong, {*load.statuses}) == (0, 0, {200})
        assert max(noticed[signal.SIGKILL]) <= 1
        assert max(noticed[signal.SIGSTOP]) <= 4
        assert max(back) <= loading + 3


def test_ten_times_too_much(tmp_path: Path) -> None:
    with serving(artifact(tmp_path / "model", 1 / CAPACITY), "--exact", "--max-queue", str(QUEUE)) as server:
        server.wait()
        front = psutil.Process(server.process.pid)
        slots = server.http.get("/status").json()["slots"]
        with under_load(server, QUEUE + slots + int(TIMES * CAPACITY * PAUSE), PAUSE) as load:
            time.sleep(5)
            before = front.memory_info().rss
            time.sleep(OVERLOAD - 5)
            after = front.memory_info().rss
        asked = sum(load.statuses.values()) / OVERLOAD
        accepted, refused = sorted(load.seconds[200]), sorted(load.seconds[429])
        limit = 1.2 * (QUEUE + slots) / CAPACITY
        print(f"\n{asked / CAPACITY:.1f} times what it can: {dict(load.statuses)}")
        print(f"p99 of the accepted {at(accepted, 0.99):.2f} s (at most {limit:.2f})")
        print(f"429 after {1e3 * median(refused):.1f} ms, p99 {1e3 * at(refused, 0.99):.1f} ms (50 ms asked)")
        print(f"memory of the front {before / 2**20:.1f} -> {after / 2**20:.1f} MiB")
        assert ({*load.statuses}, load.wrong, load.lost) == ({200, 429}, 0, 0)
        assert asked / CAPACITY >= 10
        assert at(accepted, 0.99) <= limit
        assert at(refused, 0.99) <= 0.05
        assert after <= 1.1 * before


def at(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_under_load(tmp_path: Path, sent: signal.Signals) -> None:
    with serving(artifact(tmp_path / "model", SLEEP), "--processes", "--exact") as server:
        server.wait()
        engine = server.engine()
        processes = [engine, *engine.children()]
        with under_load(server, CLIENTS) as load:
            time.sleep(2)
            began = time.monotonic()
            os.kill(server.process.pid, sent)
            server.process.wait(30)
            ended = time.monotonic() - began
            _, alive = psutil.wait_procs(processes, 10)
            gone = time.monotonic() - began
        print(f"\n{sent.name}: front gone after {ended:.2f} s, all after {gone:.2f} s")
        print(f"answers {dict(load.statuses)}, lost {load.lost}")
        assert not alive
        if sent is signal.SIGTERM:
            assert (load.lost, {*load.statuses} - {200, 503}, load.wrong) == (0, set(), 0)
