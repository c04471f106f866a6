"""What this host has to offer, by rule of thumb; a cluster file says it better."""

from __future__ import annotations

import os

import torch

from ir.cluster import Cluster, Device, Link

_GPU_LINK = Link(bandwidth=50e9, latency=10e-6)
_CPU_LINK = Link(bandwidth=4e9, latency=30e-6)  # a queue between threads, or a socket between processes


def host_cluster(count: int) -> Cluster:
    """`count` equal devices: this host's GPUs if it has as many, else shares of its CPU."""
    if count <= torch.cuda.device_count():
        return Cluster.uniform(tuple(map(_gpu, range(count))), _GPU_LINK)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpu = Device("cpu", flops=1e11, bandwidth=2e10, memory=memory // count, launch=2e-6)
    return Cluster.uniform((cpu,) * count, _CPU_LINK)


def _gpu(index: int) -> Device:
    memory = torch.cuda.get_device_properties(index).total_memory
    return Device(f"cuda:{index}", flops=4e14, bandwidth=2e12, memory=memory, launch=5e-6)
