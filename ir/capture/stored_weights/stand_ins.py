"""Plain weights in place of the stored ones, while a model is recorded.

A quantized weight computed at each use is a dozen operators for one, all of which an export would trace in each layer,
and those of experts in a function of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ir.autocast import autocast_is_on
from ir.capture.stored_weights.formulas import FormulaNodes, formula_nodes, stored_kind
from ir.checkpoint.quantized.kept import KeptWeight, kept_weights
from ir.errors import CaptureError


@dataclass(frozen=True, eq=False)
class StandIn:
    """A plain weight in the place of a stored one."""

    path: str  # the module's
    order: tuple[str, ...]  # the names of the module's parameters
    weight: KeptWeight
    formula: FormulaNodes


@contextmanager
def plain_weights(model: nn.Module) -> Iterator[Mapping[str, StandIn]]:
    """Have modules hold plain weights on the meta device in place of stored tensors while this lasts.

    The stand-ins come by the dotted name of the weight; there is none where a formula cannot be recorded, which the
    recording of the model then says, and under autocast, which casts in formulas, too.
    """
    found = [] if autocast_is_on() else list(_stored(model))
    kinds = [stored_kind(weight, module, path) for path, module, weight in found]
    try:
        formulas = formula_nodes(kinds)
    except CaptureError:
        found, kinds, formulas = [], [], {}
    before = {module: dict(module._parameters) for _, module, _ in found}
    stand_ins: dict[str, StandIn] = {}
    plain: dict[tuple[Any, ...], nn.Parameter] = {}  # by the stored tensors, so that what is tied stays tied
    try:
        for (path, module, weight), kind in zip(found, kinds, strict=True):
            name = f"{path}.{weight.attribute}".lstrip(".")
            stand_ins[name] = StandIn(path, tuple(before[module]), weight, formulas[kind])
            stored = kind, *(id(before[module][part]) for _, part in weight.parameters)
            weight.replace_stored(module, plain.setdefault(stored, formulas[kind].stand_in()))
        yield stand_ins
    finally:
        for module, parameters in before.items():
            _put_back(module, parameters)


def _stored(model: nn.Module) -> Iterator[tuple[str, nn.Module, KeptWeight]]:
    """The weights that have no values here, each with its module and the path of that."""
    for path, module in model.named_modules():
        for weight in kept_weights(type(module)):
            if all(_is_meta(module._parameters[name]) for _, name in weight.parameters):
                yield path, module, weight


def _put_back(module: nn.Module, parameters: Mapping[str, Any]) -> None:
    module._parameters.clear()
    module._parameters.update(parameters)


def _is_meta(param: nn.Parameter | None) -> bool:
    return param is not None and param.is_meta
