"""Kernels that the files beside stages compile on a thread, while stages run without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class HelperKernels:
    """The kernels of an artifact's helpers, which the stages of a process share.

    A helper that compiles some has `finish_kernels` and `kernels_are_compiled`.
    """

    helpers: Sequence[ModuleType] = ()

    def are_compiled(self) -> bool:
        """Whether those are that stages would have used until now."""
        return all(helper.kernels_are_compiled() for helper in self._compiling)

    def finish(self) -> bool:
        """Wait until they are, and say so: True."""
        for helper in self._compiling:
            helper.finish_kernels()
        return True

    @property
    def _compiling(self) -> list[ModuleType]:
        return [helper for helper in self.helpers if hasattr(helper, "kernels_are_compiled")]
