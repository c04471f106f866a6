"""fuse-quantized: a linear layer reads its weight as it is stored, in place of one that is dequantized for it.

Dequantizing writes the weight, and the product reads it again: for each token, some ten times the bytes stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.checkpoint.quantized.packed import Gptq, PackedRows
from ir.checkpoint.quantized.scaled import Scaled
from ir.graph import Call, Graph, Node, Param, Value
from ir.machine.cluster import Cluster
from ir.machine.kinds import runs_kernels
from ir.operators.facts import aten
from ir.quantized_linear.formulas import WeightAsStored, stored_weight
from ir.quantized_linear.linear_operator import QUANTIZED_LINEAR
from ir.sizes import TensorType
from passes.pipeline import each_program


@dataclass(frozen=True)
class FuseQuantized:
    """The steps of a decoder on GPUs: there, a step is few tokens, and takes no gradients.

    Layers are left as they are where the columns of a weight do not lie in groups.
    """

    name: ClassVar = "fuse-quantized"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether all devices are GPUs."""
        return runs_kernels(cluster)

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        return _FusingLinear(graph).fused() if graph.decoding.page and self.looks_at(cluster) else graph


@dataclass
class _FusingLinear:
    """The nodes that take the place of linear layers in a graph."""

    graph: Graph
    name: Namer = field(init=False)

    def __post_init__(self) -> None:
        self.name = Namer(self.graph.names)

    def fused(self) -> Graph:
        nodes = tuple(n for node in self.graph.nodes for n in self._instead(node))
        return without_dead_code(replace(self.graph, nodes=nodes))

    def _instead(self, node: Node) -> Iterator[Node]:
        if not isinstance(node, Call) or node.op != aten.linear.default:
            yield node
            return
        found = stored_weight(node.operands[1], self.graph)
        if found is None or not (options := _options(found, *map(int, node.operands[1].type.shape))):
            yield node
            return
        stored = {what: found.parts[what] for what in ("codes", "scale", "zeros") if what in found.parts}
        turned = [self._transposed(p, node) for p in stored.values()] if isinstance(found.scheme, Gptq) else []
        values = [call.results[0] for call in turned] or [*stored.values()]
        x, _, bias = (*node.args, None)[:3]
        kwargs = {k: v for k, v in {"bias": bias, **options}.items() if v is not None}
        yield from turned
        yield replace(node, op=QUANTIZED_LINEAR, args=(x, *values), kwargs=kwargs)

    def _transposed(self, param: Param, node: Call) -> Call:
        made = Value(self.name(f"{param.name}_t"), TensorType(param.type.shape[::-1], param.type.dtype))
        return replace(node, op=aten.t.default, args=(param,), kwargs={}, results=(made,))


def _options(weight: WeightAsStored, rows: int, columns: int) -> dict[str, Any]:
    """The options of the operator for a weight `[rows, columns]`; none where it has no such form."""
    scheme, parts = weight.scheme, weight.parts
    if parts["scale"].type.dtype.itemsize == 1 or not parts.keys() <= {"codes", "scale", "zeros"}:
        return {}
    match scheme:
        case PackedRows(bits=bits) if parts["scale"].type.shape[0] == rows:
            group = rows * columns // int(parts["scale"].type.numel)
            lowest = {} if "zeros" in parts else {"lowest": 1 << (bits - 1)}
            options: dict[str, Any] = {"bits": bits, **lowest, "step": [1, group]}
        case Gptq(bits=bits, zeros_less_one=less_one):
            added = {"added": sum(1 << shift for shift in range(0, 32, bits))} if less_one else {}
            options = {"bits": bits, **added, "step": [1, columns // int(parts["scale"].type.shape[0])]}
        case Scaled(wide=wide) if "zeros" not in parts:
            step = scheme.steps((rows, columns), tuple(int(size) for size in parts["scale"].type.shape))
            return {"step": [*step], **({"wide": True} if wide else {})}
        case _:
            return {}
    return options if options["step"][1] % (32 // options["bits"]) == 0 else {}
