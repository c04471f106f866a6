"""fuse-elementwise: pointwise operators that follow each other become one kernel, which writes only what others read.

A layer of a Llama model is 38 kernels, 28 of them of such operators, each of which reads what those before it have just
written.  As one kernel, an RMSNorm of 2,048 tokens takes 8 µs for 121 on an H200.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ir.fused.kernel_nodes import can_fuse, is_kernel, read_outside, without_views
from ir.graph import Call, Graph, Node
from ir.machine.cluster import Cluster
from ir.machine.kinds import runs_kernels
from passes.pipeline import each_program

CLASS = 3  # nodes of a module that the stages' files may have a class for, from which a kernel does not reach out
REACH = 64  # nodes behind which a kernel takes no more


@dataclass(frozen=True)
class FuseElementwise:
    """Marks the nodes of a kernel, and leaves them as they are: a cut may go through it, and makes two of it.

    Only for GPUs; the kernels have the bits of torch's own.
    """

    name: ClassVar = "fuse-elementwise"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether all devices are GPUs."""
        return runs_kernels(cluster)

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        if not self.looks_at(cluster):
            return graph
        name = {node: nodes[-1].results[0].name for nodes in _Kernels(graph).found() for node in nodes}
        return graph.map(lambda node: replace(node, kernel=name[node]) if node in name else node)


@dataclass
class _Kernels:
    """Nodes that are one kernel, which grow by the nodes that read what they make."""

    graph: Graph
    place: dict[Node, int] = field(default_factory=dict)
    kernel: dict[Node, list[Call]] = field(default_factory=dict)  # the nodes of its kernel, in order

    def found(self) -> Iterator[Sequence[Call]]:
        """The nodes of each kernel."""
        self.place = {node: i for i, node in enumerate(self.graph.nodes)}
        home, producer = _homes(self.graph.nodes), self.graph.producer
        for node in self.graph.nodes:
            if not isinstance(node, Call) or not can_fuse(node):
                continue
            self.kernel[node] = [node]
            for made in (producer.get(v) for v in node.operands):
                if made in self.kernel and home[made] == home[node]:
                    self._join(self.kernel[made], self.kernel[node])
        kept = set(self.graph.kept)
        for joined in {id(nodes): nodes for nodes in self.kernel.values()}.values():
            nodes = without_views(joined, self.graph.users, kept)
            if is_kernel(nodes, read_outside(nodes, self.graph.users, kept)):
                yield nodes

    def _join(self, a: list[Call], b: list[Call]) -> None:
        """Make two kernels one, where they are near and no node must run between them."""
        if a is b or self.place[b[-1]] - self.place[a[-1]] > REACH:
            return
        joined = sorted([*a, *b], key=self.place.__getitem__)
        if not self._between(joined):
            self.kernel |= dict.fromkeys(joined, joined)

    def _between(self, nodes: Sequence[Call]) -> bool:
        """Whether a node outside of `nodes`, or of a kernel outside, reads what they make and makes what they read."""
        inside, first = set(nodes), self.place[nodes[0]]
        ahead, seen = [v for node in nodes for v in node.operands], set[Node]()
        while ahead:
            node = self.graph.producer.get(ahead.pop())
            if node is None or node in inside or node in seen:
                continue
            members = self.kernel.get(node, [node])
            seen.update(members)
            if self.place[members[-1]] < first:
                continue
            read = [v for member in members for v in member.operands]
            if any(self.graph.producer.get(v) in inside for v in read):
                return True
            ahead += read
        return False


def _homes(nodes: Sequence[Node]) -> Mapping[Node, str]:
    """The innermost module around each node that has so many nodes that the stages' files may have a class for it."""
    around = {node: [f.module for f in node.where.frames if f.module] or [node.where.module] for node in nodes}
    count = Counter(module for modules in around.values() for module in dict.fromkeys(modules))
    return {node: next((m for m in reversed(modules) if count[m] >= CLASS), "") for node, modules in around.items()}
