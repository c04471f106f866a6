"""Rerolling: finds the repeats that export unrolled, and turns them into classes and loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

from codegen.structure.forms import Forms
from codegen.structure.hoisting import hoisted
from codegen.structure.kernels import Kernels
from codegen.structure.loops import roll
from codegen.structure.program import Block, Simple, Statement, Use, inside, join, relative
from codegen.structure.regions import Region, regions
from codegen.structure.shared_classes import Classes, shared
from ir.graph import Graph, Value

SMALLEST = 3  # calls in a class; fewer read better where they are used


_Known: TypeAlias = dict[tuple[int, frozenset[int]], tuple[Block, tuple[int, ...]]]
"""A block by its number and those of all classes that it needs, with the numbers of the blocks that it calls."""


@dataclass(frozen=True)
class Rerolled:
    """The statements of a stage, and the classes that they use."""

    body: tuple[Statement, ...]
    blocks: tuple[Block, ...]  # each after those that it uses
    inlined: Mapping[Block | None, tuple[Region, ...]]  # regions that could be classes, by the function that has them

    @property
    def bodies(self) -> tuple[tuple[Statement, ...], ...]:
        """The statements of the stage and of each class."""
        return (self.body, *(block.body for block in self.blocks))


def reroll(
    graph: Graph,
    fqns: Mapping[Value, str],
    opened: AbstractSet[str] = frozenset(),
    closed: AbstractSet[str] = frozenset(),
) -> Rerolled:
    """The stage with a class for each module that repeats but those in `closed`, and for those in `opened`.

    `fqns` are the names of what the stage stores.  Regions are taken for equal where operators, arguments,
    wiring, types and relative names of weights are.
    """
    return Repeats.of(graph, fqns).rolled(opened, closed)


@dataclass(frozen=True)
class Repeats:
    """The regions of a stage, and the classes that they can be calls of: what `reroll` finds before it chooses."""

    graph: Graph
    fqns: Mapping[Value, str]
    root: Region
    forms: Forms
    classes: Classes
    kernels: Kernels
    known: _Known = field(default_factory=dict)  # blocks of earlier choices of classes

    @classmethod
    def of(cls, graph: Graph, fqns: Mapping[Value, str]) -> Repeats:
        root, apart = hoisted(regions(graph), graph, fqns)
        forms = Forms(graph, fqns)
        forms.number(root)
        classes = shared(_possible(root, forms, fqns, apart), forms, graph)
        return cls(graph, fqns, root, forms, classes, Kernels(forms.of_action))

    def rolled(self, opened: AbstractSet[str], closed: AbstractSet[str]) -> Rerolled:
        """The stage with the classes that repeat but those in `closed`, and those in `opened`."""
        number = self.classes.number
        counts = Counter(number.values())
        wanted = {n for r, n in number.items() if r.path in opened or (counts[n] > 1 and _pays(r))}
        wanted -= {n for r, n in number.items() if r.path in closed}
        roller = _Roller(self.graph, self.fqns, self.forms, self.classes, self.kernels, wanted, self.known)
        statements = self.kernels.launched(roller.flat(self.root), set(self.graph.kept), "")
        body = roll(statements, set(self.graph.outputs), self.fqns, self.forms.of_action)
        inlined: dict[Block | None, tuple[Region, ...]] = {None: tuple(roller.inlined(self.root))}
        inlined |= {b: tuple(roller.inlined(r)) for b, r in roller.regions.items()}
        return Rerolled(body, tuple(roller.blocks.values()), inlined)


def _pays(region: Region) -> bool:
    return len(region.calls) >= SMALLEST


def _possible(root: Region, forms: Forms, fqns: Mapping[Value, str], apart: AbstractSet[Value]) -> dict[Region, int]:
    """The regions that can be calls of a class, and the number of the class.

    A class holds all that its module stores, but what is read `apart` from the module and can be added to it.
    """
    form_of = {r: forms.form(r) for r in root.inner}
    by_path: dict[str, set[int]] = {}
    for region, form in form_of.items():
        by_path.setdefault(region.path, set()).add(form)
    stored = _stored_in(fqns)
    return {
        region: form
        for region, form in form_of.items()
        if len(by_path[region.path]) == 1
        and forms.border(region).outputs
        and _is_whole(region, stored.get(region.path, set()) - forms.stored_by(region), forms, apart)
    }


def _is_whole(region: Region, missing: AbstractSet[Value], forms: Forms, apart: AbstractSet[Value]) -> bool:
    """Whether a class with the tensors of a region can stand for its module, once `missing` are added."""
    if not missing or not missing <= apart:
        return not missing
    modules = {path for v in forms.stored_by(region) for path in accumulate(forms.fqns[v].split("."), join)}
    for value in missing:
        new = next(path for path in accumulate(forms.fqns[value].split("."), join) if path not in modules)
        if new.rpartition(".")[2].isdigit():  # nothing can be added to a list
            return False
    return True


def _stored_in(fqns: Mapping[Value, str]) -> dict[str, set[Value]]:
    """The tensors in each module and in the modules in it."""
    found: dict[str, set[Value]] = {}
    for value, fqn in fqns.items():
        while fqn:
            fqn = fqn.rpartition(".")[0]
            found.setdefault(fqn, set()).add(value)
    return found


@dataclass
class _Roller:
    """Turns regions into statements, one block for each class."""

    graph: Graph
    fqns: Mapping[Value, str]
    forms: Forms
    classes: Classes
    kernels: Kernels
    wanted: AbstractSet[int]  # the numbers of the classes that are made
    known: _Known
    blocks: dict[int, Block] = field(default_factory=dict)
    regions: dict[Block, Region] = field(default_factory=dict)
    within: dict[int, frozenset[int]] = field(default_factory=dict)

    def is_class(self, region: Region) -> bool:
        return self.classes.number.get(region) in self.wanted

    def flat(self, region: Region) -> list[Simple]:
        """The statements of a region: calls of classes, and single actions."""
        statements: list[Simple] = []
        for item in region.items:
            if not isinstance(item, Region):
                statements.append(item)
            elif self.is_class(item):
                outputs = self.forms.border(item).outputs
                statements.append(Use(self.block(item), item.path, self.classes.given(item), outputs, item.calls))
            else:
                statements += self.flat(item)
        return statements

    def block(self, region: Region) -> Block:
        """The block of a region's class, that of an earlier choice of classes where the same ones are in it."""
        number = self.classes.number[region]
        if number not in self.blocks:
            shown = self.classes.shown[number]
            key = number, self.needed(number)
            if key not in self.known:
                self.known[key] = self._made(shown)
            block, called = self.known[key]
            for other in called:
                self.block(self.classes.shown[other])
            self.blocks[number], self.regions[block] = block, shown
        return self.blocks[number]

    def needed(self, number: int) -> frozenset[int]:
        """The numbers of the classes in a class, and in those: they may show other regions than are in it."""
        if number not in self.within:
            inner = {self.classes.number[r] for r in self.classes.shown[number].inner if self.is_class(r)}
            self.within[number] = frozenset(inner).union(*map(self.needed, inner))
        return self.within[number]

    def _made(self, region: Region) -> tuple[Block, tuple[int, ...]]:
        """The block of a region, and the numbers of those that it calls, in their order."""
        border = self.forms.border(region)
        statements = self.kernels.launched(self.flat(region), set(border.outputs), region.path)
        held = {v: fqn for v, fqn in self.fqns.items() if inside(region.path, fqn)}
        body = roll(statements, set(border.outputs), held, self.forms.of_action)
        cls = self.graph.modules.get(region.path, "Part")
        stored = frozenset(relative(self.fqns[v], region.path) for v in self.forms.stored_by(region))
        number_of = {block: number for number, block in self.blocks.items()}
        called = dict.fromkeys(number_of[s.block] for s in statements if isinstance(s, Use))
        block = Block(region.path, cls, border.inputs, border.outputs, body, region.calls, stored)
        return block, tuple(called)

    def inlined(self, region: Region) -> Iterator[Region]:
        """The regions in one that could be classes and are none."""
        for item in region.items:
            if isinstance(item, Region) and not self.is_class(item):
                if item in self.classes.number:
                    yield item
                yield from self.inlined(item)
