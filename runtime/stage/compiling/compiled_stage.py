"""A stage's module under torch.compile, or run by graphs that were compiled for another load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from runtime.device.packs import as_stored
from runtime.device.settings import settings_now
from runtime.stage.compiling.compiled_cache import CompiledCache
from runtime.stage.compiling.compiler import warnings_shown
from runtime.stage.compiling.kept_graphs import KeptGraph, KeptGraphs
from runtime.stage.compiling.observed_graph import graphs_observed
from runtime.stage.recurring_shapes import NotCompilable
from runtime.stage.stage import ShapeKey, shape_key

COMPILES = 2  # calls of a shape that may compile: torch takes tensors for others in the second one, inside of operators
_SHOWN = 8  # shapes that have run without the compiler, and that it sees once it is needed
VARIANTS = 128  # of a module: sizes that are 1, others, and all combinations of these


class CompiledStage:
    """A stage's module under torch.compile.  A class of repeated layers is compiled once: stage files mark them so."""

    def __init__(
        self,
        call: Callable[..., object],
        cache: CompiledCache | None = None,
        options: Mapping[str, Any] | None = None,
        kept: KeptGraphs | None = None,
    ) -> None:
        """`cache`: where what is compiled is kept; without one, where torch keeps it.  `options`: of torch.compile.

        `kept`: graphs of the module, which run without the compiler.
        """
        self._call = call
        self._cache = cache
        self._options = options or {}
        self._kept = kept
        self._ready: dict[ShapeKey, KeptGraph] = {}  # the kept graphs that have run, under these settings:
        self._settings = settings_now()
        self._calls: Counter[ShapeKey] = Counter()  # in which something could be compiled

    @cached_property
    def _faster(self) -> Callable[..., object]:
        """The module under torch.compile, made at the first call: the compiler takes seconds to import."""
        return torch.compile(self._call, **self._options)

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether it has run for these shapes, so that nothing is left to compile."""
        return self._ready_graph(key) is not None or self._calls[key] >= COMPILES

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        """Raises NotCompilable."""
        if self._kept is not None:
            tensors = tuple(map(as_stored, tensors))  # the shapes by which graphs are found say nothing of this
        key = shape_key(tensors, sizes)
        if (graph := self._ready_graph(key)) is not None:
            return graph(*tensors)
        if self.is_prepared(key):
            return self._faster(*tensors, **sizes)
        made = self._from_kept(key, tensors)
        return self._compiled(key, tensors, sizes) if made is None else made

    def _ready_graph(self, key: ShapeKey) -> KeptGraph | None:
        """The kept graph that has run for these shapes, unless settings of the process have changed since."""
        if self._kept is None:
            return None
        if (now := settings_now()) != self._settings:
            self._settings = now
            self._ready.clear()
            self._kept.look_again()
        return self._ready.get(key)

    def _from_kept(self, key: ShapeKey, tensors: Sequence[torch.Tensor]) -> object | None:
        """The module's result, by a graph that was kept; None without one that runs."""
        if self._kept is None or (graph := self._kept.find(key, tensors)) is None:
            return None
        try:
            with self._cache_used():
                made = graph(*tensors)
        except Exception as e:
            self._kept.forget(key, e)
            return None
        self._ready[key] = graph
        return made

    def _compiled(self, key: ShapeKey, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> object:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            with warnings_shown(), _for_many_sizes(), self._cache_used():
                self._show_ready(tensors)
                with graphs_observed() as graphs:
                    made = self._faster(*tensors, **sizes)
                if self._kept is not None:
                    self._kept.keep(key, tensors, made, graphs)
        except TorchDynamoException as e:
            raise NotCompilable(f"it cannot be compiled; run it without compile: {e}") from e
        self._calls[key] += 1
        return made

    def _show_ready(self, tensors: Sequence[torch.Tensor]) -> None:
        """Have the compiler see batches of the shapes that graphs ran for without it, before it sees another.

        Then it knows which sizes change, and finds what it made for those.  Their numbers are of these `tensors`.
        """
        if self._calls:
            return
        for shapes, sizes in islice(self._ready, _SHOWN):
            with suppress(Exception):
                self._faster(*map(_filled, tensors, shapes), **dict(sizes))

    def _cache_used(self) -> AbstractContextManager[None]:
        return self._cache.used() if self._cache else nullcontext()


def _filled(tensor: torch.Tensor, shape: tuple[torch.Size, tuple[int, ...]]) -> torch.Tensor:
    """A tensor of a shape and strides, filled with the first number of another one."""
    return torch.empty_strided(*shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor.reshape(-1)[0])


@contextmanager
def _for_many_sizes() -> Iterator[None]:
    """A block in which a size that equals another one, or a fixed one, by chance may still differ from it later."""
    from torch._dynamo import config
    from torch.fx.experimental import _config

    sizes: Any = _config
    # A float of a module is fixed from the start, or all is traced once more when that shows.
    with config.patch(recompile_limit=VARIANTS, specialize_float=True), sizes.patch(use_duck_shape=False):
        yield
