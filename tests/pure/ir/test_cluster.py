"""A machine read from a file, or made of equal devices."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ir.errors import SourceError
from ir.machine.cluster import Cluster, Device, Link
from ir.machine.host import host_cluster, named_cluster
from ir.machine.kinds import HARDWARE_KINDS
from ir.machine.named import FOLDER, read_cluster
from tests.support.models.planning import DEVICE, LINK

GOOD = """
link = { bandwidth = "12GB", latency = 1e-5 }
[[device]]
name = "cuda:0"
flops = 4e14
bandwidth = "3.3TB"
memory = "80GiB"
launch = 5e-6
[[device]]
name = "cuda:1"
flops = 2e14
bandwidth = "2TB"
memory = "40GiB"
[[device]]
name = "cpu"
flops = 1e12
bandwidth = 200e9
memory = 256e9
[[link-between]]
devices = ["cuda:0", "cuda:1"]
bandwidth = "400GB"
latency = 5e-6
"""


def test_a_file_describes_devices_and_links(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(GOOD)
    cluster = Cluster.read(tmp_path / "cluster.toml")
    assert cluster.devices == (
        Device("cuda:0", flops=4e14, bandwidth=3.3e12, memory=80 << 30, launch=5e-6),
        Device("cuda:1", flops=2e14, bandwidth=2e12, memory=40 << 30),
        Device("cpu", flops=1e12, bandwidth=2e11, memory=256 * 10**9),
    )
    fast, slow = Link(bandwidth=4e11, latency=5e-6), Link(bandwidth=12e9, latency=1e-5)
    assert cluster.links == {(0, 1): fast, (1, 0): fast, (0, 2): slow, (2, 0): slow, (1, 2): slow, (2, 1): slow}


def test_rates_are_one_number_or_one_for_each_dtype(tmp_path: Path) -> None:
    by_dtype = 'flops = { float32 = "5e13", bfloat16 = 7e14 }\nconvolution = 2e14\ncache = "32MiB"\ndispatch = 6e-6'
    (tmp_path / "cluster.toml").write_text(GOOD.replace("flops = 4e14", by_dtype))
    first, second, _ = Cluster.read(tmp_path / "cluster.toml").devices
    assert [first.rate("product", dtype) for dtype in ("float32", "bfloat16", "float16")] == [5e13, 7e14, 7e14]
    assert [first.rate(unit, "bfloat16") for unit in ("convolution", "attention")] == [2e14, 7e14]
    assert (first.cache, first.dispatch) == (32 << 20, 6e-6)
    assert first.rate("unaligned_convolution", "float32") == 2e14  # as the other convolutions
    assert second.rate("biased_attention", "float64") == 2e14
    assert first.kind != second.kind == replace(second, name="cuda:7", memory=1).kind


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_common_devices_come_by_name(file: Path) -> None:
    (alone,) = Cluster.read(file).devices
    cluster = read_cluster(f"{file.stem}x3")
    assert [device.name for device in cluster.devices] == [f"{alone.name}:{i}" for i in range(3)]
    assert {device.kind for device in cluster.devices} == {alone.kind}
    assert len(cluster.links) == 6
    assert alone.rate("product", "bfloat16") > 0 < alone.launch


def test_a_device_without_a_file_is_named_beside_those_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match=r"no file h300x2, and of devices only a100, cpu, .* are known"):
        read_cluster("h300x2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h200x2").write_text(GOOD)  # a file of that name comes first
    assert len(read_cluster("h200x2").devices) == 3


BAD = {
    "one bracket for two": (
        '[device]\nname = "cpu"\n',
        ": [device] stands for one device alone; write [[device]], with two brackets",
    ),
    "a bandwidth below zero": (GOOD.replace('"3.3TB"', "-1"), "device 0: bandwidth is -1; it must be positive"),
    "an unknown dtype": (
        GOOD.replace("flops = 4e14", "flops = { fp32 = 4e14 }"),
        "device 0: flops: unknown dtype 'fp32'; known are float64, float32",
    ),
    "a table of no dtype": (GOOD.replace("flops = 4e14", "flops = {}"), "device 0: flops names no dtype; write"),
    "a rate that is no amount": (
        GOOD.replace("flops = 4e14", 'flops = { float32 = "fast" }'),
        "device 0: flops.float32: 'fast' is not an amount",
    ),
    "a table where there is none": (
        GOOD.replace('"3.3TB"', "{ float32 = 1 }"),
        "device 0: bandwidth: \"{'float32': 1}\"",
    ),
    "a rate of zero": (
        GOOD.replace("flops = 2e14", "flops = { float16 = 0 }"),
        "device 1: flops.float16 is 0; it must",
    ),
    "no device": (
        "link = {bandwidth = 1, latency = 0}",
        "describes no device; add a [[device]] table with name",
    ),
    "no TOML": ("[[device", "cannot read the cluster file "),
    "an unknown key": (
        GOOD.replace("launch", "lunch"),
        "device 0: unknown key 'lunch'; known are name, flops",
    ),
    "a missing key": (GOOD.replace('memory = "40GiB"', ""), "device 1: memory must be given"),
    "no amount": (GOOD.replace("40GiB", "plenty"), "device 1: memory: 'plenty' is not an amount such as 16GiB"),
    "two of one name": (GOOD.replace('"cuda:1"\nflops', '"cuda:0"\nflops'), "two devices have the same name"),
    "a link to nowhere": (
        GOOD.replace('"cuda:1"]', '"cuda:7"]'),
        "link-between 0: `devices` must name two of cuda:0",
    ),
    "a link with three ends": (
        GOOD.replace('"cuda:1"]', '"cuda:1", "cpu"]'),
        "link-between 0: `devices` must name two",
    ),
    "no link": (GOOD.replace("link = ", "# link = "), "no link between cuda:0 and cpu; add `link = {…}`"),
    "half a link": (GOOD.replace(", latency = 1e-5", ""), "link: latency must be given"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_wrong(what: str, tmp_path: Path) -> None:
    text, message = BAD[what]
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(SourceError, match=re.escape(message)) as raised:
        Cluster.read(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read the cluster file .*no\.toml"):
        Cluster.read(tmp_path / "no.toml")


def test_equal_devices_are_all_linked_both_ways() -> None:
    cluster = Cluster.uniform((DEVICE,) * 3, LINK)
    assert set(cluster.links) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}


def test_a_transfer_takes_the_latency_and_then_the_bytes() -> None:
    assert Link(bandwidth=4e9, latency=3e-5).seconds(8e9) == pytest.approx(2.00003)


def test_the_cpu_takes_longer_for_products_of_unaligned_rows_in_float32() -> None:
    cpu = named_cluster(["cpu"]).devices[0]
    assert cpu.rate("unaligned_product", "float32") == 0.92 * cpu.rate("product", "float32")
    assert cpu.rate("unaligned_product", "float16") == cpu.rate("product", "float16")


@pytest.mark.parametrize(
    ("model", "memory", "like"),
    [
        ("NVIDIA H200", 140, "h200x2"),
        ("NVIDIA H100 80GB HBM3", 79, "h100x2"),
        ("NVIDIA H100 PCIe", 79, ""),  # the same chip, with less power, and without NVLink
        ("NVIDIA GeForce RTX 4090", 24, ""),
    ],
)
def test_a_host_of_common_devices_has_their_numbers(
    monkeypatch: pytest.MonkeyPatch, model: str, memory: int, like: str
) -> None:
    properties = SimpleNamespace(name=model, total_memory=memory << 30)
    module = SimpleNamespace(get_device_properties=lambda device: properties)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    cluster = host_cluster(2)
    assert [device.name for device in cluster.devices] == ["cuda:0", "cuda:1"]
    assert {device.memory for device in cluster.devices} == {memory << 30}
    if like:
        known = read_cluster(like)
        assert {device.kind for device in cluster.devices} == {device.kind for device in known.devices}
        assert cluster.links == known.links
    else:
        kind = HARDWARE_KINDS["cuda"]
        assert (cluster.devices[0].flops, cluster.links[0, 1]) == (kind.flops, kind.link)
