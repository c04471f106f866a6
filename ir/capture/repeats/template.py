"""A call of a layer as the template of later ones."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._C import DisableTorchFunction
from torch.utils._python_dispatch import _disable_current_modes

from ir.capture.repeats.again import without_fake_operator
from ir.capture.repeats.call_recorder import PLAIN_TYPES, CallRecorder, FunctionCall, InDoubt, Ref
from ir.capture.repeats.holders import require_own_memory, require_unheld
from ir.capture.repeats.kept import Holding
from ir.objects.signature import flatten


@dataclass(frozen=True, eq=False)
class Template:
    """A call of a layer: its steps, the tensors that it took from outside, and those that are there afterwards."""

    steps: Sequence[FunctionCall]
    external: Sequence[int]
    outputs: Sequence[int]  # made inside and returned, or left in an object, each once
    stored: Sequence[int]  # from outside, and changed in place
    returned: tuple[str, tuple[Any, ...]]  # the containers, and the leaves with Refs
    tensors: Sequence[torch.Tensor]  # those from outside; for others, ones of the same types that nothing else holds
    held: Sequence[int] = field(default=(), init=False)  # how often others are held

    def __post_init__(self) -> None:
        object.__setattr__(self, "held", self._counts())

    @classmethod
    def of(cls, recorder: CallRecorder, result: Any, held: Iterable[Holding], unkept: bool) -> Template:
        """The template of a recorded call; `held`: the places in objects that it was given.

        Raises InDoubt where it cannot be one, as where something else keeps what it made, unless that is known not to.
        """
        if recorder.doubt:
            raise InDoubt(recorder.doubt)
        with DisableTorchFunction():
            leaves, spec = flatten(result)
            if not all(isinstance(leaf, (torch.Tensor, *PLAIN_TYPES)) for leaf in leaves):
                raise InDoubt("it returns something else than tensors")
            described = tuple(recorder.described(leaf, external=False) for leaf in leaves)
            inside = set(range(len(recorder.tensors))) - set(recorder.external)
            returned = [leaf.index for leaf in described if isinstance(leaf, Ref)]
            outputs = list(dict.fromkeys(i for i in returned if i in inside))
            if not outputs or any(i not in inside and i not in recorder.external for i in returned):
                raise InDoubt("it returns no tensor of its own")
            kept = [(h, i) for h in held if (i := recorder.index(h.tensor)) in inside]
            if not unkept:
                require_unheld(recorder.tensors, inside.difference(outputs), [h for h, _ in kept])
            outputs = list(dict.fromkeys([*outputs, *(i for _, i in kept)]))
            require_own_memory(recorder.tensors, recorder.external, outputs)
            with _disable_current_modes():
                tensors = [_alone(t) if i in inside else t for i, t in enumerate(recorder.tensors)]
        steps, external, stored = tuple(recorder.steps), tuple(recorder.external), recorder.stored
        return cls(steps, external, outputs, stored, (str(spec), described), tensors)

    def _counts(self) -> list[int]:
        external = set(self.external)
        return [sys.getrefcount(t) for i, t in enumerate(self.tensors) if i not in external]

    @property
    def results(self) -> list[torch.Tensor]:
        """Tensors of the types of the outputs, and of what is stored."""
        return [self.tensors[i] for i in (*self.outputs, *self.stored)]

    def require_unkept(self) -> None:
        """Raise InDoubt where something holds a tensor of the template that a later call was given."""
        if self._counts() != self.held:
            gc.collect()
            if self._counts() != self.held:
                raise InDoubt("something keeps a tensor that it made")


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the same memory that nothing else holds."""
    return without_fake_operator(torch.Tensor.detach, tensor)
