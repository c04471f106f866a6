"""The flags with which a source is cut before it is served: for the devices of one replica, over all hosts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from passes.cli.cut_first import compile_flags
from passes.cli.cut_first.prepared import _key
from passes.cli.cut_first.serving import parser


@pytest.mark.parametrize(
    ("flags", "accelerators", "cut_with"),
    [
        ("", 0, ["--stages", "1"]),
        ("", 4, ["--stages", "4"]),
        ("--replicas 2", 4, ["--stages", "2"]),
        ("--replicas 2", 0, ["--stages", "1"]),
        ("--hosts 2", 4, ["--stages", "8"]),
        ("--hosts 2", 0, ["--stages", "2"]),
        ("--replicas 2 --devices cuda:0,cuda:1,cuda:2,cuda:3", 4, ["--devices", "cuda:0,cuda:1"]),
        ("--replicas 2 --stages 3", 4, ["--stages", "3"]),
    ],
)
def test_a_source_is_cut_for_the_devices_of_one_replica(
    flags: str, accelerators: int, cut_with: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = SimpleNamespace(accelerators=lambda: [None] * accelerators)
    monkeypatch.setattr(compile_flags, "load", lambda module, what: host)
    monkeypatch.setattr(compile_flags, "prepared", lambda source, given: given)
    options = parser("stagecut serve").parse_args(["a/folder", *flags.split()])
    assert compile_flags.cut("a/folder", options, options.replicas, options.hosts) == cut_with


def test_a_changed_adapter_asks_for_another_artifact(tmp_path: Path) -> None:
    source, adapter = tmp_path / "model.py", tmp_path / "adapter"
    adapter.mkdir()
    source.write_text("")
    flags = ["--adapter", str(adapter)]
    before = _key(source, flags)
    assert _key(source, flags) == before
    (adapter / "adapter_model.safetensors").write_bytes(b"trained")
    assert _key(source, flags) != before
