"""Tensors of numbers in the code of layers: torch makes one in each call, and numbers them through a full export."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ir.capture.paths import clean
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.repeats.layers import Created, Recorded, Repeated

_LIFTED = "lifted_tensor_"


@dataclass(frozen=True)
class OwnConstant:
    """A constant of a full export: a copy of one in the program, with its name."""

    placeholder: str  # in the program
    path: str  # of the module in whose code it is; in a repeated layer that of the template
    name: str
    instance: int = -1  # the number of the repeated layer; -1: it is the program's own


@dataclass(frozen=True)
class _Lifted:
    placeholder: str
    path: str
    name: str
    users: tuple[int, ...]  # positions among the nodes created

    @property
    def numbered(self) -> bool:
        return self.name.startswith(_LIFTED)

    def is_in(self, recorded: Recorded) -> bool:
        """Whether it is read in a template.  Raises InDoubt where it is read elsewhere, too."""
        inside = [recorded.start <= user < recorded.end for user in self.users]
        if any(inside) and not (self.numbered and all(inside)):
            raise InDoubt(f"others read {self.name}, too")
        return any(inside)


def constants_of(
    created: Sequence[Created], repeated: Sequence[Repeated], program: ExportedProgram, final: Mapping[str, str]
) -> tuple[OwnConstant, ...]:
    """The constants of a full export, in its order; `final`: the names in the program of nodes that torch renamed.

    Raises InDoubt where torch orders or numbers them in another way than it is known to.
    """
    places = {final.get(one.name, one.name): i for i, one in enumerate(created)}
    lifted = list(_lifted(program, places))
    numbers = [one.name for one in lifted if one.numbered]
    firsts = [one.users[0] for one in lifted]
    if numbers != [f"{_LIFTED}{i}" for i in range(len(numbers))] or firsts != sorted(firsts):
        raise InDoubt("torch numbers the constants of a program otherwise")
    found = [(one.users[0], one, -1) for one in lifted]
    found += [(again.start, one, again.number) for again in repeated for one in lifted if one.is_in(again.recorded)]
    count = itertools.count()
    return tuple(
        OwnConstant(one.placeholder, one.path, f"{_LIFTED}{next(count)}" if one.numbered else one.name, instance)
        for _, one, instance in sorted(found, key=lambda item: item[0])
    )


def _lifted(program: ExportedProgram, places: Mapping[str, int]) -> Iterator[_Lifted]:
    """The constants that torch made inputs of a program, in order."""
    nodes = (node for node in program.graph.nodes if node.op == "placeholder")
    for spec, node in zip(program.graph_signature.input_specs, nodes, strict=True):
        if spec.kind is InputKind.CONSTANT_TENSOR:
            users = sorted(places.get(user.name, -1) for user in node.users)
            if not users or users[0] < 0:
                raise InDoubt(f"torch has the constant {spec.target} read by other nodes than it recorded")
            path, _, name = clean(str(spec.target)).rpartition(".")
            yield _Lifted(node.name, path, name, tuple(users))
