"""The processes of stages as their owner sees them: when they are copies of it, and what it hears of them."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from threading import Thread

import pytest
import torch

from runtime.manifest.manifest import Manifest
from runtime.processes import start
from runtime.processes.message_socket import MessageSocket
from runtime.processes.orders import Alive, Followed
from runtime.processes.session import Places
from runtime.processes.start import QUIET, Fork, can_be_copied
from runtime.processes.watch import Members, StageProcess, watch
from tests.support.artifacts.by_hand import chain
from tests.support.patience import PATIENCE


def test_reports_that_come_together_are_heard_together(tmp_path: Path) -> None:
    here, there = MessageSocket.pair()
    member = StageProcess(1, Fork(os.getpid()), here, waits=2)
    shared = Members(members={1: member})
    places = Places(Manifest.read(chain(tmp_path)), (1, 1), (torch.device("cpu"),) * 2)
    texts = [pickle.dumps(report) for report in (Alive(), Followed(), Alive(), Followed())]
    os.write(there.fileno(), b"".join(struct.pack("<II", len(text), 0) + text for text in texts))
    thread = Thread(target=watch, args=(shared, places, 300.0))
    thread.start()
    try:
        with shared.changed:
            assert shared.changed.wait_for(shared.is_settled, PATIENCE)  # nothing more comes that would wake the thread
    finally:
        shared.ended.set()
        thread.join()
        here.close()
        there.close()


def test_a_process_with_threads_or_much_memory_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.threading, "enumerate", lambda: [start.threading.current_thread()])
    monkeypatch.setattr(start, "_own_memory", lambda: 0)
    assert can_be_copied()
    other = Thread()
    monkeypatch.setattr(start.threading, "enumerate", lambda: [start.threading.current_thread(), other])
    assert not can_be_copied()
    QUIET.add(other)
    assert can_be_copied()
    monkeypatch.setattr(start, "_own_memory", lambda: start.COPIED + 1)
    assert not can_be_copied()
