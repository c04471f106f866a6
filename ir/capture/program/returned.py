"""The results of an exported program: those of the model, and the inputs that it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from ir.graph import Value
from ir.objects.signature import Slot, Tree


def changed_inputs(program: ExportedProgram, input_names: Sequence[str]) -> tuple[str, ...]:
    """The names of the inputs that the model changes in place."""
    signature = program.graph_signature
    given = [spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT]
    changed = [s.target for s in signature.output_specs if s.kind is OutputKind.USER_INPUT_MUTATION]
    return tuple(input_names[given.index(str(target))] for target in changed)


def split_returns(tree: Tree, returned: list[Any]) -> tuple[Tree, list[Value]]:
    """The returned tree with sizes as leaves and tensors in renumbered slots, and these tensors."""
    outputs: list[Value] = []

    def leaf(old: Any) -> Any:
        if not isinstance(old, Slot):
            return old
        value = returned[old.index]
        if not isinstance(value, Value):
            return value
        outputs.append(value)
        return Slot(len(outputs) - 1)

    return replace(tree, leaves=tuple(map(leaf, tree.leaves))), outputs
