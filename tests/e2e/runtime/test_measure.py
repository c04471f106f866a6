"""`python -m runtime.measure`: what it writes, and what it does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ir.machine.cluster import Cluster, Device, Link
from runtime import DeviceError
from runtime.measure import __main__ as measure
from runtime.measure.contractions import Point, _fit
from runtime.measure.links import LinkSpeed


@pytest.mark.slow
def test_this_host_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cluster.toml"
    assert measure.main(["-o", str(out), "--devices", "cpu,cpu", "--threads", "1"]) == 0
    told = capsys.readouterr()
    assert told.out == out.read_text()
    assert "cpu: products in bfloat16\n" in told.err
    assert list(tmp_path.iterdir()) == [out]
    cluster = Cluster.read(out)
    device = cluster.devices[0]
    assert [d.name for d in cluster.devices] == ["cpu:0", "cpu:1"]
    assert {d.kind for d in cluster.devices} == {device.kind}
    assert device.threads == 1
    assert device.unaligned_product != ()
    for unit in ("product", "unaligned_product", "convolution", "attention"):
        for dtype in ("float32", "bfloat16", "float16"):
            assert 1e7 < device.rate(unit, dtype) < 1e12  # of one thread
    assert 1e8 < device.bandwidth < 1e12
    assert 1e-7 < device.launch < 1e-3
    assert 1e6 < cluster.links[0, 1].bandwidth < 1e12


TABLE = {
    "name": "cuda:0",
    "memory": 80 << 30,
    "launch": 2e-6,
    "dispatch": 6e-6,
    "bandwidth": 4e12,
    "cache": 1 << 25,
    "cache_bandwidth": 6e12,
    "elements": 3e11,
    "fill": 0.0,
    "flops": {"float32": 5e13, "bfloat16": 7e14},
    "unaligned_product": {"bfloat16": 1e14},
    "convolution": {"float32": 2e14},
    "attention": {"bfloat16": 3e14},
}


@pytest.mark.parametrize("alike", [True, False])
def test_the_file_is_one_that_the_compiler_reads(alike: bool, tmp_path: Path) -> None:
    fast, slow = LinkSpeed(4e11, 1e-5), LinkSpeed(2e11 if not alike else 4.1e11, 1e-5)
    tables = [TABLE | {"name": f"cuda:{i}"} for i in range(3)]
    links = {(0, 1): fast, (0, 2): fast, (1, 2): slow}
    (tmp_path / "c.toml").write_text("\n".join(measure._file(tables, links, ["host and cuda:0: 55 GB/s"])))
    cluster = Cluster.read(tmp_path / "c.toml")
    assert cluster.devices[1] == Device(
        "cuda:1",
        flops=(("float32", 5e13), ("bfloat16", 7e14)),
        bandwidth=4e12,
        memory=80 << 30,
        launch=2e-6,
        dispatch=6e-6,
        unaligned_product=(("bfloat16", 1e14),),
        convolution=(("float32", 2e14),),
        attention=(("bfloat16", 3e14),),
        elements=3e11,
        cache=1 << 25,
        cache_bandwidth=6e12,
    )
    assert cluster.links[2, 0] == (Link(pytest.approx(4.033e11), 1e-5) if alike else Link(4e11, 1e-5))
    assert cluster.links[2, 1].bandwidth == pytest.approx(4.033e11 if alike else 2e11)


def test_equal_devices_get_equal_numbers_and_a_slow_one_keeps_its_own() -> None:
    def evened(rate: float) -> list[object]:
        tables = [TABLE | {"name": f"cpu:{i}", "flops": {"float32": r}} for i, r in enumerate((1e9, rate))]
        return [table["flops"] for table in measure._evened(tables, [torch.device("cpu")] * 2)]

    assert evened(1.1e9) == [{"float32": 1.05e9}] * 2
    assert evened(2e9) == [{"float32": 1e9}, {"float32": 2e9}]


def test_a_rate_and_what_comes_besides_are_told_apart() -> None:
    rate, besides = _fit([Point(flops, 3e-6 + flops / 5e12) for flops in (1e7, 1e8, 1e9)])
    assert (rate, besides) == (pytest.approx(5e12), pytest.approx(3e-6))
    rate, besides = _fit([Point(1e9, 1e-3), Point(2e9, 1e-3)])  # slower when small: nothing comes besides
    assert besides >= 0 < rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "no/cluster.toml"], r"error: cannot write no/cluster.toml: no is no folder"),
        (["-o", "c.toml", "--devices", "cuda:99"], r"error: device cuda:99 is not here; this host has cpu"),
        (["-o", "c.toml", "--devices", "abacus"], r"error: device 'abacus' is no device"),
    ],
)
def test_what_cannot_be_measured(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert measure.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_gpu_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "place_stages", lambda names, _: map(torch.device, names))
    assert measure._devices("cuda:0, cuda:1, cpu, cpu") == [torch.device(d) for d in ("cuda:0", "cuda:1", "cpu", "cpu")]
    with pytest.raises(DeviceError, match="cuda:1 is named twice; only the CPU can be shared"):
        measure._devices("cuda:0,cuda:1,cuda:1")


@pytest.mark.gpu
def test_gpus_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "cluster.toml"
    assert measure.main(["-o", str(out)]) == 0
    device, *others = Cluster.read(out).devices
    assert len(others) == torch.cuda.device_count() - 1
    assert device.rate("product", "bfloat16") > device.rate("product", "float32")
    assert device.rate("product", "bfloat16") > device.rate("unaligned_product", "bfloat16")
    assert 1e10 < device.elements < 1e13
    assert 0 < device.launch < device.dispatch < 1e-3
