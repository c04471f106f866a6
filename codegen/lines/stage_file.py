"""Names of a stage's file, arguments, sizes and tensors, shared by its source and the manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import sympy

from codegen.spelling.opaque_modules import OpaqueModules
from codegen.spelling.torch_modules import TorchModule, torch_module
from codegen.structure.partial_modules import PartialModules
from ir.graph import Call, Constant, Param, State, Value
from ir.operators.higher_order import symbols_read, with_inner
from ir.operators.registration import Registration, comes_with_torch, registration_of
from ir.plan import Stage, StagePlan
from ir.sizes import at

_NAMELESS = re.compile(r"(lifted_tensor_|_tensor_constant)\d+(_\d+)?")  # tensors made in forward


@dataclass(frozen=True)
class StageFile:
    """The names of a stage of `plan`: its files, its class, its tensors, its arguments."""

    plan: StagePlan  # of one program
    stage: Stage
    model: str  # the user's name of the model
    program: str = ""  # the name of the program, where there are several
    suffix: str = ""  # of the name of the file; those of the first program have none
    names: Mapping[str, str] = field(default_factory=dict)  # of the tensors of all programs, where there are several
    partial: PartialModules | None = None  # of the program, where they are known

    @property
    def module(self) -> str:
        return f"stage_{self.stage.index}{self.suffix}.py"

    @property
    def cls(self) -> str:
        return f"Stage{self.stage.index}"

    @property
    def weights(self) -> str:
        return f"stage_{self.stage.index}.safetensors"

    @cached_property
    def fqns(self) -> Mapping[Value, str]:
        """The name of each stored tensor in the stage."""
        if not self.program:
            return tensor_names(self.stage)
        return {value: self.names[value.name] for value in self.stage.stored}

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The sizes of the stage's pools that are bound at load, with those of the plan."""
        pools = (value for value in self.fqns if isinstance(value, State) and value.zeros)
        return {pool.rows: at(pool.type.shape[0], {}) for pool in pools}

    @cached_property
    def dims(self) -> Mapping[sympy.Symbol, tuple[Value, int]]:
        """The argument and the dimension of it that each size can be read from."""
        found: dict[sympy.Symbol, tuple[Value, int]] = {}
        for value in self.stage.graph.inputs:
            for i, dim in enumerate(value.type.shape):
                if isinstance(dim, sympy.Symbol):
                    found.setdefault(dim, (value, i))
        return found

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """The modules that the stage runs in part, with the part."""
        return (self.partial or PartialModules(self.plan.graph)).of_stage(self.stage.index)

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """The sources of the operators from outside torch that the stage runs itself."""
        inner = (call for outer in self.calls for call in with_inner(outer))
        ops = dict.fromkeys(call.op for call in inner if not comes_with_torch(call.op))
        return tuple(map(registration_of, ops))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        return _calls(self.stage)

    @cached_property
    def opaque(self) -> OpaqueModules:
        """The modules of the stage that are kept whole."""
        return OpaqueModules(self.calls)

    @cached_property
    def torch_modules(self) -> Mapping[str, TorchModule]:
        """The modules of torch's own that the stage holds as they are, by path."""
        by_module: dict[str, dict[str, Value]] = {}
        for value, fqn in self.fqns.items():
            owner, _, name = fqn.rpartition(".")
            by_module.setdefault(owner, {})[name] = value
        around = {path[:end] for path in by_module for end in range(len(path)) if path[end] == "."}
        found: dict[str, TorchModule] = {}
        for call in self.calls:
            path = call.where.module
            if not path or path in found or path in around:
                continue
            cls, stored = self.stage.graph.modules.get(path, ""), by_module.get(path, {})
            if source := torch_module(call, cls, stored):
                found[path] = TorchModule(cls, stored, source)
        return found

    @cached_property
    def symbols(self) -> tuple[sympy.Symbol, ...]:
        """The sizes that the stage computes with, sorted by name."""
        return tuple(sorted({s for n in self.calls for s in symbols_read(n)}, key=str))

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes that `forward` takes as integers, since no argument's shape has them."""
        return tuple(str(s) for s in self.symbols if s not in self.dims)

    def outputs_of(self, value: Value) -> tuple[int, ...]:
        """The places of a value among the outputs of the model."""
        return tuple(i for i, v in enumerate(self.plan.graph.outputs) if v.name == value.name)


def stage_files(plan: StagePlan, model: str) -> list[list[StageFile]]:
    """The files of all stages, a list for each program."""
    if len(plan.programs) == 1:
        partial = PartialModules(plan.graph)
        return [[StageFile(plan, stage, model, partial=partial) for stage in plan.stages]]
    names = [{value.name: name for value, name in tensor_names(stage).items()} for stage in plan.stages]
    return [
        [
            StageFile(plan.program(i), stage, model, program, f"_{program}" * (i > 0), names[stage.index], partial)
            for partial in [PartialModules(plan.program(i).graph)]
            for stage in plan.program(i).stages
        ]
        for i, program in enumerate(plan.programs)
    ]


def tensor_names(stage: Stage) -> dict[Value, str]:
    """The name of each stored tensor; of a tied weight's names the one that belongs to a module of this stage."""
    opaque = tuple(f"{path}." for path in OpaqueModules(_calls(stage)).modules)
    named = {value: _tensor_name(value, stage, opaque) for value in stage.stored}
    count = Counter[str]()
    for value, fqn in named.items():
        owner, _, name = fqn.rpartition(".")
        if _NAMELESS.fullmatch(name):  # numbered throughout the model; here in each module
            named[value] = f"{owner}.constant_{count[owner]}".lstrip(".")
            count[owner] += 1
    return named


def _tensor_name(value: Value, stage: Stage, opaque: tuple[str, ...]) -> str:
    match value:
        case Constant():
            return value.fqn
        case Param() | State():
            readers = {n.where.module for n in stage.graph.users.get(value, ())}
            known = (f for f in value.fqns if f.startswith(opaque) or f.rpartition(".")[0] in readers)
            return next(known, value.fqns[0])
    raise AssertionError(value)


def _calls(stage: Stage) -> tuple[Call, ...]:
    return tuple(n for n in stage.graph.nodes if isinstance(n, Call))
