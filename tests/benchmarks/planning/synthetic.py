"""Transformers of any length as problems, without torch: the sizes of Llama-3-70B, 44 nodes a layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from passes.partitioners.problem import Device, Link, Node, Problem, Value

TOKENS, HIDDEN, KEYS, INSIDE = 2048, 8192, 1024, 28672
FLOPS, BANDWIDTH, LAUNCH = 4e14, 3.3e12, 5e-6
LAYER = 44


def transformer(nodes: int, stages: int) -> Problem:
    """A transformer of about so many nodes, for equal devices."""
    program = _Program()
    x = program.run(HIDDEN)
    angles, mask = program.run(128), program.run(1)
    for _ in range(nodes // LAYER):
        x = program.layer(x, angles, mask)
    program.matmul(program.norm(x), HIDDEN, 128256)
    return program.problem(stages)


@dataclass
class _Program:
    """Grows node by node; a node is named by its index, and makes one bfloat16[TOKENS, width]."""

    seconds: list[float] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    readers: list[list[int]] = field(default_factory=list)

    def run(self, width: int, *reads: int, seconds: float | None = None) -> int:
        """A node that takes the time to read and write its tensors, if nothing else is said."""
        node = len(self.seconds)
        moved = width + sum(self.widths[read] for read in reads)
        self.seconds.append(LAUNCH + 2 * TOKENS * moved / BANDWIDTH if seconds is None else seconds)
        self.widths.append(width)
        self.readers.append([])
        for read in dict.fromkeys(reads):
            self.readers[read].append(node)
        return node

    def view(self, read: int) -> int:
        return self.run(self.widths[read], read, seconds=0.0)

    def chain(self, length: int, read: int) -> int:
        for _ in range(length):
            read = self.run(self.widths[read], read)
        return read

    def matmul(self, read: int, inside: int, outside: int) -> int:
        return self.run(outside, read, seconds=LAUNCH + 2 * TOKENS * inside * outside / FLOPS)

    def norm(self, x: int) -> int:
        scale = self.run(1, self.chain(1, x))
        return self.chain(1, self.run(HIDDEN, x, self.chain(3, scale)))

    def rotate(self, x: int, angles: int) -> int:
        halves = self.chain(2, x)
        return self.run(self.widths[x], self.run(self.widths[x], x, angles), self.run(self.widths[x], halves, angles))

    def layer(self, x: int, angles: int, mask: int) -> int:
        normed = self.norm(x)
        query, key, value = (self.view(self.view(self.matmul(normed, HIDDEN, w))) for w in (HIDDEN, KEYS, KEYS))
        query, key = self.rotate(query, angles), self.rotate(key, angles)
        attended = self.view(self.run(HIDDEN, query, key, value, mask))
        x = self.run(HIDDEN, x, self.matmul(self.view(attended), HIDDEN, HIDDEN))
        normed = self.norm(x)
        gate = self.chain(1, self.matmul(normed, HIDDEN, INSIDE))
        up = self.run(INSIDE, gate, self.matmul(normed, HIDDEN, INSIDE))
        return self.run(HIDDEN, x, self.matmul(up, INSIDE, HIDDEN))

    def problem(self, stages: int) -> Problem:
        return Problem(
            nodes=tuple(Node((seconds,)) for seconds in self.seconds),
            values=tuple(
                Value(node, tuple(readers), bytes=2.0 * TOKENS * width)
                for node, (width, readers) in enumerate(zip(self.widths, self.readers, strict=True))
            ),
            devices=(Device(),) * stages,
            link=Link(bandwidth=4e11, latency=1e-5),
            every_device=True,
        )
