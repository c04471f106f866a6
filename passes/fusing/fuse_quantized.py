"""fuse-quantized: a linear layer reads its weight as it is stored, in place of one that is dequantized for it.

Dequantizing writes the weight, and the product reads it again: for each token, some ten times the bytes stored.  Layers
of one input are one product: for a single row, a small weight leaves most of a GPU idle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True, eq=False)
class _Layer:
    """A linear layer over a stored weight, with the options of the operator for it."""

    node: Call
    weight: WeightAsStored
    options: Mapping[str, Any]

    @property
    def stored(self) -> tuple[Param, ...]:
        return tuple(self.weight.parts[what] for what in ("codes", "scale", "zeros") if what in self.weight.parts)

    @property
    def bias(self) -> Value | None:
        return self.node.arguments["bias"]

    @property
    def rows(self) -> int:
        return int(self.node.results[0].type.shape[-1])  # type: ignore[arg-type]

    @property
    def kind(self) -> object:
        """The facts in which layers agree whose weights can lie side by side; None for one that goes with no other.

        One of them is the repeated module: layers of a decoder make keys of one result, each in its stage.
        """
        per_word = 32 // self.options["bits"] if "zeros" in self.weight.parts else 1
        if self.rows % self.options["step"][0] or self.rows % per_word:
            return None
        if not isinstance(self.bias, Param | None):  # it may be made after the first layer
            return None
        types = tuple((p.type.shape[1:], p.type.dtype) for p in self.stored)
        place = self.node.operands[0], _repeated(self.node.where.module)
        return *place, repr(self.options), types, self.bias is None, self.weight.scheme


@dataclass
class _FusingLinear:
    """The nodes that take the place of linear layers in a graph."""

    graph: Graph
    name: Namer = field(init=False)

    def __post_init__(self) -> None:
        self.name = Namer(self.graph.names)

    def fused(self) -> Graph:
        alike: dict[Any, list[_Layer]] = {}
        for layer in (found for node in self.graph.nodes if (found := self._layer(node))):
            alike.setdefault(layer.kind or layer, []).append(layer)
        first = {layers[0].node: layers for layers in alike.values()}
        others = {layer.node for layers in alike.values() for layer in layers[1:]}
        nodes = (
            self._product(first[node]) if node in first else [node] for node in self.graph.nodes if node not in others
        )
        return without_dead_code(replace(self.graph, nodes=tuple(n for some in nodes for n in some)))

    def _layer(self, node: Node) -> _Layer | None:
        if not isinstance(node, Call) or node.op != aten.linear.default:
            return None
        weight = node.operands[1]
        found = stored_weight(weight, self.graph)
        options = {} if found is None else _options(found, *map(int, weight.type.shape))
        return _Layer(node, found, options) if found and options else None

    def _product(self, layers: Sequence[_Layer]) -> Iterator[Node]:
        """The nodes for layers of one kind: one operator, whose results are taken apart."""
        node, whole = layers[0].node, layers[0].node.results[0]
        turned = [[self._transposed(p, layer) for p in layer.stored] for layer in layers if _lies_across(layer)]
        yield from (call for calls in turned for call in calls)
        values = [[call.results[0] for call in calls] for calls in turned] or [layer.stored for layer in layers]
        biases = {} if layers[0].bias is None else {"bias": [layer.bias for layer in layers]}
        if len(layers) > 1:
            shape = (*whole.type.shape[:-1], sum(layer.rows for layer in layers))
            variables = (*("" for _ in node.where.frames[1:]), "merged")
            whole = Value(self.name("merged"), TensorType(shape, whole.type.dtype), variables=variables)
        args = (node.operands[0], *map(list, zip(*values, strict=True)))
        yield replace(node, op=QUANTIZED_LINEAR, args=args, kwargs={**biases, **layers[0].options}, results=(whole,))
        if len(layers) > 1:
            yield from self._parts(whole, layers)

    def _parts(self, whole: Value, layers: Sequence[_Layer]) -> Iterator[Node]:
        """The results of layers, each as it lies in memory without the others."""
        last, start = len(whole.type.shape) - 1, 0
        for layer in layers:
            result = layer.node.results[0]
            part = replace(result, name=self.name(f"{result.name}_part"))
            args, start = (whole, last, start, start + layer.rows), start + layer.rows
            yield replace(layer.node, op=aten.slice.Tensor, args=args, kwargs={}, results=(part,))
            yield replace(layer.node, op=aten.contiguous.default, args=(part,), kwargs={})

    def _transposed(self, param: Param, layer: _Layer) -> Call:
        made = Value(self.name(f"{param.name}_t"), TensorType(param.type.shape[::-1], param.type.dtype))
        return replace(layer.node, op=aten.t.default, args=(param,), kwargs={}, results=(made,))


def _repeated(module: str) -> str:
    """The outermost numbered module around a module: `model.layers.0` for `model.layers.0.mlp.up_proj`; "" for none."""
    found = re.match(r"(?:.*?\.)?\d+(?=\.|$)", module)
    return found[0] if found else ""


def _lies_across(layer: _Layer) -> bool:
    """Whether the rows of a weight are the columns of what is stored."""
    return isinstance(layer.weight.scheme, Gptq)


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
