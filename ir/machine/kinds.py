"""Kinds of devices: all that the compiler needs to know of them, by rule of thumb, and torch does not tell."""

from __future__ import annotations

from dataclasses import dataclass

from ir.machine.cluster import Cluster, Link, Rates


@dataclass(frozen=True)
class HardwareKind:
    """One kind of device, with numbers that are typical of it; a measured cluster file has better ones."""

    name: str  # as torch spells it, without an index
    flops: float  # per second
    bandwidth: float  # bytes per second, to its own memory
    launch: float  # seconds of the device for a kernel that does nothing
    link: Link  # between two of the kind, on one host
    unaligned_product: Rates = ()  # flops per second, if rows are no multiple of 16 bytes; (): as of other products
    flash_attention: bool = False  # whether torch's fast attention takes is_causal and grouped heads, and no mask
    graphs: bool = False  # whether the runtime launches all kernels of a decoder's step at once
    kernels: bool = False  # whether the kernels of ir/paged and ir/quantized_linear run there


_CPU = HardwareKind(
    "cpu",
    flops=1e11,
    bandwidth=2e10,
    launch=2e-6,
    link=Link(bandwidth=4e9, latency=30e-6),  # a queue between threads, or a socket between processes
    unaligned_product=(("float32", 9.2e10), ("bfloat16", 1e11)),  # of float32 0.93 and 0.91 were measured on two hosts
)
_CUDA = HardwareKind(
    "cuda",
    flops=4e14,
    bandwidth=2e12,
    launch=5e-6,
    link=Link(bandwidth=50e9, latency=10e-6),
    flash_attention=True,
    graphs=True,
    kernels=True,
)
HARDWARE_KINDS = {kind.name: kind for kind in (_CPU, _CUDA)}


def has_flash_attention(name: str) -> bool:
    """Whether a device of a cluster, such as "cuda:0", has fast attention that is causal or of grouped heads."""
    kind = _kind_of(name)
    return kind is not None and kind.flash_attention


def has_graphs(name: str) -> bool:
    """Whether the host launches all kernels of a decoder's step on a device of a cluster at once."""
    kind = _kind_of(name)
    return kind is not None and kind.graphs


def runs_kernels(cluster: Cluster) -> bool:
    """Whether the kernels of ir/paged and ir/quantized_linear run on all devices; False where there are none."""
    kinds = [_kind_of(device.name) for device in cluster.devices]
    return bool(kinds) and all(kind is not None and kind.kernels for kind in kinds)


def _kind_of(name: str) -> HardwareKind | None:
    return HARDWARE_KINDS.get(name.partition(":")[0])
