"""Stages that are recorded by themselves once a shape comes again."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from runtime.stage.cuda_graphs import NotYet
from runtime.stage.stage import ShapeKey, StageLaunch, shape_key

RECURS = 3  # the call of a shape at which it is recorded, if all are among so many calls:
WINDOW = 16  # sizes that change from call to call are not recorded, which stops the device for a while
RECORDED = 8  # shapes of a program that are recorded at a time
UNUSED = 256  # calls without a shape after which another may take its place
WATCHED = 256  # shapes whose calls are counted
COPIED_SLOWLY = 256 << 20  # bytes of outputs from which on to copy them out of a graph takes longer than launches
ROOM = 0.1  # of the device's memory that must be free to record another


@dataclass(frozen=True)
class Recurrence:
    """The rule by which the shapes of a program are recorded."""

    recurs: int = RECURS
    window: int = WINDOW
    most: int = RECORDED


OF_BATCHES = Recurrence()
OF_TEXTS = Recurrence(2, 1024, 64)  # of a decoder, whose steps are padded to few shapes, which all come again


class NotCompilable(RuntimeError):
    """Raised for a module that its user wanted compiled, and that cannot be: it does not run as it is instead."""


class Recorder(Protocol):
    """A stage's module that can be recorded: see `GraphedStage`."""

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> tuple[torch.Tensor, ...]: ...
    def is_prepared(self, key: ShapeKey) -> bool: ...
    def graph_of(self, key: ShapeKey) -> StageLaunch | None: ...
    def forget(self, key: ShapeKey) -> None: ...


class RecurringShapes:
    """A stage's module in one program, recorded for the shapes that come again and again, and run as it is for others.

    A module that cannot be recorded runs as it is.  Raises NotCompilable.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        recorder: Recorder,
        may_record: Callable[[], bool],
        is_compiled: Callable[[ShapeKey], bool] | None = None,
        rule: Recurrence = OF_BATCHES,
        random_states: Callable[[], Sequence[torch.Tensor]] = lambda: (),
        recording: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
        has_state: bool = False,
    ) -> None:
        """`call`: the module as it is, which `is_compiled` tells for a shape, if it must be.

        `may_record`: whether the device has memory for another recording, and kernels are there that it would launch.
        `random_states`: those of the generators that the module may draw from.  `recording`: a block in which another
        shape is recorded, if it is True.  `has_state`: whether a call that fails may have changed something.
        """
        self._rule = rule
        self._call = call
        self._is_compiled = is_compiled or (lambda key: True)
        self._recorder = recorder
        self._may_record = may_record
        self._random_states = random_states
        self._recording = recording
        self._has_state = has_state
        self._calls = 0
        self._seen: OrderedDict[ShapeKey, deque[int]] = OrderedDict()  # the numbers of its last calls; the latest last
        self._used: dict[ShapeKey, int] = {}  # the number of the latest call of each shape that is recorded
        self._due = False  # whether the next call is recorded, as the last `is_prepared` has found
        self._gave_up = False

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether nothing is recorded, or compiled, at the next call of a shape.

        To be asked before each call, which keeps to it: memory and kernels may be there a moment later.
        """
        self._due = key not in self._used and self._is_due(key)
        return key in self._used or (self._is_compiled(key) and not self._due)

    def graph_of(self, key: ShapeKey) -> StageLaunch | None:
        """The graph for these shapes, which counts as called, if there is one."""
        if key not in self._used:
            return None
        self._calls += 1
        self._used[key] = self._calls
        return self._recorder.graph_of(key)

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> Any:
        self._calls += 1
        key = shape_key(tensors, sizes)
        if key in self._used:
            return self._recorded(key, tensors, sizes)
        if self._is_next(key):
            with self._recording() as allowed:
                if allowed:
                    self._make_room()
                    return self._recorded(key, tensors, sizes)
        before = self._random_states()
        made = self._as_it_is(tensors, sizes)
        draws = not all(map(torch.equal, before, self._random_states()))  # as often again to be recorded
        if draws or sum(tensor.nbytes for tensor in _tensors(made)) >= COPIED_SLOWLY:
            self._seen.pop(key, None)
        return made

    def _as_it_is(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        """The outputs of the module, to which graphs give way if they take the memory that it needs."""
        try:
            return self._call(*tensors, **sizes)
        except torch.OutOfMemoryError:
            if self._has_state or not self._used:
                raise
        self._gave_up = True
        for key in self._used:
            self._recorder.forget(key)
        self._used.clear()
        return self._call(*tensors, **sizes)

    def _recorded(self, key: ShapeKey, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> Any:
        try:
            made = self._recorder(*tensors, **sizes)
        except NotCompilable:
            raise
        except NotYet:
            pass
        except RuntimeError:
            if self._recorder.is_prepared(key):
                raise
            self._gave_up = True
        else:
            self._used[key] = self._calls
            return made
        return self._as_it_is(tensors, sizes)  # here nothing keeps the tensors of what failed

    def _is_next(self, key: ShapeKey) -> bool:
        """Whether to record a shape now.  Counts the call."""
        due, self._due = self._due, False
        self._seen[key] = self._seen.pop(key, deque(maxlen=self._rule.recurs - 1))
        self._seen[key].append(self._calls)
        if len(self._seen) > WATCHED:
            self._seen.popitem(last=False)
        return due

    def _make_room(self) -> None:
        """Drop the shape that another may replace, if all places are taken."""
        if (oldest := self._oldest()) is not None:
            del self._used[oldest]
            self._recorder.forget(oldest)

    def _is_due(self, key: ShapeKey) -> bool:
        before = self._seen.get(key)
        if self._gave_up or before is None or len(before) < self._rule.recurs - 1:
            return False
        if self._calls + 1 - before[0] >= self._rule.window:
            return False
        return (len(self._used) < self._rule.most or self._oldest() is not None) and self._may_record()

    def _oldest(self) -> ShapeKey | None:
        """The recorded shape that another may replace, if all places are taken."""
        if len(self._used) < self._rule.most:
            return None
        key = min(self._used, key=self._used.__getitem__)
        return key if self._calls - self._used[key] > UNUSED else None


def _tensors(made: Any) -> Sequence[torch.Tensor]:
    """The tensors that a stage returned; it may have returned anything."""
    return [one for one in made if isinstance(one, torch.Tensor)] if isinstance(made, tuple) else ()


def random_states(device: torch.device) -> tuple[torch.Tensor, ...]:
    """The states of torch's own generators of random numbers, of the host and of an accelerator."""
    of_device = getattr(torch.get_device_module(device), "get_rng_state", None)
    return torch.get_rng_state(), *(() if of_device is None else (of_device(device),))


def has_room(device: torch.device) -> bool:
    """Whether a tenth of an accelerator's memory is free."""
    free, total = torch.get_device_module(device).mem_get_info(device)
    return free >= ROOM * total
