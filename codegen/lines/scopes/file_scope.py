"""Names that the functions of one stage file share: of stored tensors, of modules, of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy

from codegen.spelling.opaque_modules import OpaqueModules
from codegen.spelling.paths import Paths
from codegen.spelling.torch_modules import TorchModule
from codegen.structure.program import Block, Statement, Use, results, walk
from ir.graph import Call, Value, dims
from ir.operators.higher_order import symbols_read
from ir.sizes import at


@dataclass(frozen=True)
class FileScope:
    """The names that the functions of one file share: of what it stores, of its modules and of its sizes."""

    fqns: Mapping[Value, str]
    reserved: frozenset[str]  # names that no variable may have
    torch_modules: Mapping[str, TorchModule]  # by path
    opaque: OpaqueModules
    paths: Paths
    sliced: Sequence[str]  # the lists of which loops go over a part
    hints: Mapping[sympy.Symbol, int]
    _missing: dict[Block, tuple[sympy.Symbol, ...]] = field(default_factory=dict)
    _nbytes: dict[Value, int] = field(default_factory=dict)

    def nbytes(self, value: Value) -> int:
        """The bytes of a value, at the sizes of the example inputs."""
        if value not in self._nbytes:
            self._nbytes[value] = at(value.type.nbytes, self.hints)
        return self._nbytes[value]

    def large(self, inputs: Sequence[Value], body: Sequence[Statement]) -> int:
        """The bytes from which on a value of a function is large: half of the largest."""
        made = (v for s in walk(body) for v in results(s))
        return max((self.nbytes(v) for v in (*inputs, *made)), default=0) // 2

    def missing(self, block: Block) -> tuple[sympy.Symbol, ...]:
        """The sizes that a block takes as arguments, since no shape of its inputs has them."""
        if block not in self._missing:
            shown = dims(block.inputs)
            self._missing[block] = tuple(s for s in self.needed(block.body) if s not in shown)
        return self._missing[block]

    def needed(self, body: Sequence[Statement]) -> tuple[sympy.Symbol, ...]:
        """The sizes that statements compute with, sorted by name."""
        own = {s for c in walk(body) if isinstance(c, Call) for s in symbols_read(c)}
        told = {s for u in walk(body) if isinstance(u, Use) for s in self.missing(u.block)}
        return tuple(sorted(own | told, key=str))
