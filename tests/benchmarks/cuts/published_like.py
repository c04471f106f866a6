"""Instances like the published ones for the time of one sample that are not at hand, in their format.

The graph of a published instance for the throughput is that for the time of one sample, on other accelerators. BERT of
any length is made by repeating an encoder layer of a published one. The layers of an InceptionV3 and the
operators of a ResNet-50 get the sizes that their shapes have, and times fitted to the published ResNet-50's layers and
BERT's operators, times a random factor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

PUBLISHED = Path(__file__).parents[2] / "data" / "partition"
HOST_LINK = 2.0**31 / 1e3  # bytes in a millisecond
SPARE = 1.5  # accelerators of an instance, relative to those whose memory would hold all

Document = dict[str, Any]


def published(name: str, memory: float) -> Document:
    """The graph of an instance for the throughput, on accelerators of so many bytes."""
    whole = json.loads((PUBLISHED / f"{name}.json").read_text())
    return _on_accelerators(whole["nodes"], whole["edges"], memory)


def bert_operators(layers: int) -> Document:
    """The operators of a BERT of at least 3 layers: the published one of 3, whose second layer is repeated."""
    whole = json.loads((PUBLISHED / "bert3_operator.json").read_text())
    repeated = {*range(25, 41), *range(131, 176)}
    first, last = 128, 173  # its input, and its output
    for copy in range(1, layers - 2):
        new = {node: 1000 * copy + node for node in repeated}
        previous = last if copy == 1 else 1000 * (copy - 1) + last
        for node in [node for node in whole["nodes"] if node["id"] in repeated]:
            colour = {"colorClass": 1000 * copy + node["colorClass"]} if "colorClass" in node else {}
            whole["nodes"].append({**node, "id": new[node["id"]], **colour})
        for edge in list(whole["edges"]):
            source, target = edge["sourceId"], edge["destId"]
            if target in repeated:
                source = previous if source == first else new.get(source, source)
                whole["edges"].append({**edge, "sourceId": source, "destId": new[target]})
    for edge in whole["edges"]:
        if edge["sourceId"] == last and edge["destId"] in (176, 180, 191, 203) and layers > 3:
            edge["sourceId"] = 1000 * (layers - 3) + last
    return _on_accelerators(whole["nodes"], whole["edges"], memory=600 * 2.0**20)


def inception_layers(batch: int, memory: float, seed: int) -> Document:
    """The layers of an InceptionV3 with its auxiliary head, on accelerators of so many bytes."""
    net = _Layers(batch, Random(seed))
    x = net.add(16.0, 3, 299)
    for inside, outside, side in ((3, 32, 149), (32, 32, 147), (32, 64, 147)):
        x = net.conv(x, inside, outside, side, 9)
    x = net.pool(x, 64, 73)
    x = net.conv(net.conv(x, 64, 80, 73, 1), 80, 192, 71, 9)
    x, width = net.pool(x, 192, 35), 192
    for pooled in (32, 64, 64):
        branches = [[(64, 1)], [(48, 1), (64, 25)], [(64, 1), (96, 9), (96, 9)]]
        x, width = net.module(x, width, 35, branches, pooled)
    x, width = net.reduced(x, width, 35, 17, [[(384, 9)], [(64, 1), (96, 9), (96, 9)]])
    for c in (128, 160, 160, 192):
        branches = [[(192, 1)], [(c, 1), (c, 7), (192, 7)], [(c, 1), (c, 7), (c, 7), (c, 7), (192, 7)]]
        x, width = net.module(x, width, 17, branches, 192)
    net.head(x, width, 17)
    x, width = net.reduced(x, width, 17, 8, [[(192, 1), (320, 9)], [(192, 1), (192, 7), (192, 7), (192, 9)]])
    for _ in range(2):
        x, width = net.forked(x, width)
    net.add(0.4, 1000, 1, net.view(net.add(0.0, width, 1, net.add(0.6, width, 1, x)), width), weights=1000.0 * width)
    return _on_accelerators(net.nodes, net.edges, memory)


def resnet_operators(batch: int, memory: float, seed: int) -> Document:
    """The operators of a ResNet-50, its parameters and its unread outputs too."""
    net = _Operators(batch, Random(seed))
    x = net.convolution(net.node(0.0, 3 * 224 * 224), 3, 64, 112, 49)
    x, width = net.node(2.0, 64 * 56 * 56, x), 64
    for inside, side, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        for block in range(blocks):
            before = 2 * side if block == 0 and inside > 64 else side
            y = net.convolution(x, width, inside, before, 1)
            y = net.convolution(y, inside, inside, side, 9)
            y = net.convolution(y, inside, 4 * inside, side, 1, relu=False)
            kept = net.convolution(x, width, 4 * inside, side, 1, relu=False) if block == 0 else x
            x, width = net.node(2.0, 4 * inside * side**2, net.node(3.0, 4 * inside * side**2, y, kept)), 4 * inside
    x = net.node(1.0, width, net.node(2.0, width, x))
    net.node(2.0, 1000, x, net.parameter(1000 * width), net.parameter(1000), flops=2e3 * width)
    return _on_accelerators(net.nodes, net.edges, memory)


def _on_accelerators(nodes: list[dict[str, Any]], edges: list[dict[str, Any]], memory: float) -> Document:
    count = ceil(SPARE * sum(node["size"] for node in nodes) / memory)
    return {"maxFPGAs": count, "maxCPUs": 8, "maxSizePerFPGA": memory, "nodes": nodes, "edges": edges}


@dataclass
class _Net:
    """Grows node by node; each gets a number, from which its edges have the cost of its bytes."""

    batch: int
    random: Random
    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)

    def put(self, milliseconds: float, slower: float, kept: float, sent: float, reads: Sequence[int]) -> int:
        """A node that keeps and sends so many bytes, and is so much slower on a CPU."""
        number, sent_of = len(self.nodes), {node["id"]: node["sent"] for node in self.nodes}
        time = milliseconds * self.random.uniform(0.9, 1.2)
        times = {"fpgaLatency": time, "cpuLatency": slower * time, "supportedOnFpga": 1}
        self.nodes.append({"id": number, **times, "size": kept, "sent": sent})
        self.edges += [{"sourceId": r, "destId": number, "cost": sent_of[r] / HOST_LINK} for r in reads]
        return number


class _Layers(_Net):
    """Layers as PipeDream profiles them: a convolution, its normalization and its ReLU are three."""

    def add(self, milliseconds: float, channels: int, side: int, *reads: int, weights: float = 0.0) -> int:
        sent = 4.0 * self.batch * channels * side**2
        return self.put(milliseconds, 10.0, sent + 4 * weights, sent, reads)

    def conv(self, x: int, inside: int, outside: int, side: int, kernel: int) -> int:
        flops = 2.0 * self.batch * outside * side**2 * inside * kernel
        sent = 4.0 * self.batch * outside * side**2
        x = self.add(flops / 9e9 + 0.3 + sent / 8e8, outside, side, x, weights=inside * outside * kernel)
        x = self.add(0.3 + sent / 2.2e8, outside, side, x, weights=outside)
        return self.add(0.25 + sent / 4e8, outside, side, x)

    def convs(self, x: int, width: int, side: int, steps: Sequence[tuple[int, int]]) -> int:
        for outside, kernel in steps:
            x, width = self.conv(x, width, outside, side, kernel), outside
        return x

    def pool(self, x: int, channels: int, side: int) -> int:
        return self.add(0.3 + 4.0 * self.batch * channels * side**2 / 1e8, channels, side, x)

    def module(
        self, x: int, width: int, side: int, branches: Sequence[Sequence[tuple[int, int]]], pooled: int
    ) -> tuple[int, int]:
        """The concatenation of branches and of a pooled one, and its channels."""
        ends = [self.convs(x, width, side, steps) for steps in branches]
        ends.append(self.conv(self.pool(x, width, side), width, pooled, side, 1))
        outside = pooled + sum(steps[-1][0] for steps in branches)
        return self.add(0.0, outside, side, *ends), outside

    def reduced(
        self, x: int, width: int, side: int, smaller: int, branches: Sequence[Sequence[tuple[int, int]]]
    ) -> tuple[int, int]:
        ends = []
        for steps in branches:
            *before, (last, kernel) = steps
            y = self.convs(x, width, side, before)
            ends.append(self.conv(y, before[-1][0] if before else width, last, smaller, kernel))
        outside = width + sum(steps[-1][0] for steps in branches)
        return self.add(0.0, outside, smaller, *ends, self.pool(x, width, smaller)), outside

    def forked(self, x: int, width: int) -> tuple[int, int]:
        """A module of the last kind, two of whose branches fork again."""
        ends = [self.convs(x, width, 8, [(320, 1)])]
        for steps in ([(384, 1)], [(448, 1), (384, 9)]):
            y = self.convs(x, width, 8, steps)
            ends.append(self.add(0.0, 768, 8, *(self.convs(y, 384, 8, [(384, 3)]) for _ in range(2))))
        ends.append(self.conv(self.pool(x, width, 8), width, 192, 8, 1))
        return self.add(0.0, 2048, 8, *ends), 2048

    def head(self, x: int, width: int, side: int) -> None:
        y = self.conv(self.add(0.3, width, 5, x), width, 128, 5, 1)
        self.add(0.3, 1000, 1, self.view(self.conv(y, 128, 768, 1, 25), 768), weights=768e3)

    def view(self, x: int, width: int) -> int:
        """A view, which reads the size too."""
        return self.add(0.0, width, 1, x, self.add(0.0, 0, 1, x))


class _Operators(_Net):
    """Operators as ONNX has them: parameters are nodes, and so are the results of what has several."""

    colours: int = 0

    def node(self, passes: float, elements: int, *reads: int, flops: float = 0.0) -> int:
        size = 4.0 * self.batch * elements
        return self.put(self.batch * flops / 1e10 + passes * 1.55e-8 * size, 23.0, size, size, reads)

    def parameter(self, elements: int) -> int:
        return self.put(0.0, 1.0, 4.0 * elements, 4.0 * elements, ())

    def convolution(self, x: int, inside: int, outside: int, side: int, kernel: int, *, relu: bool = True) -> int:
        flops = 2.0 * outside * side**2 * inside * kernel
        weight = self.parameter(inside * outside * kernel)
        x = self.node(1.0, outside * side**2, x, weight, flops=flops)
        self._same((weight, x))
        statistics = [self.parameter(outside) for _ in range(4)]
        size = 4.0 * self.batch * outside * side**2
        x = self.put(8 * 1.55e-8 * size, 23.0, 0.0, 8.0 * outside, (x, *statistics))
        result, *unread = (self.put(0.0, 1.0, size, size, (x,)) for size in (size, 4.0 * outside, 4.0 * outside))
        self._same((*statistics, x, result, *unread))
        return self.node(2.0, outside * side**2, result) if relu else result

    def _same(self, nodes: Sequence[int]) -> None:
        self.colours += 1
        for node in nodes:
            self.nodes[node]["colorClass"] = self.colours
