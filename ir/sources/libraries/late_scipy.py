"""scipy's solver of assignments, imported once it is called.

transformers imports it with all its models, for losses, which no plan computes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_MODULE, _SOLVER = "scipy.optimize", "linear_sum_assignment"


@contextmanager
def scipy_later() -> Iterator[None]:
    """Inside the context, code that imports the solver gets a function that imports scipy when it is called."""
    if _MODULE in sys.modules or find_spec("scipy") is None:
        yield
        return
    stand_in = _Later(_MODULE)
    sys.modules[_MODULE] = stand_in
    try:
        yield
    finally:
        _remove(stand_in)


class _Later(ModuleType):
    """A stand-in for a module, which is imported for all that is asked of it but the solver."""

    def __getattr__(self, name: str) -> Any:
        importing = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
        if name == "__all__" or (name == "__path__" and importing):  # for `import *`, or for a module inside
            return self._asked(name)
        if name.startswith("__"):  # of Python's own, while it imports
            raise AttributeError(name)
        return self._solve if name == _SOLVER else self._asked(name)

    def _solve(self, *args: Any, **kwargs: Any) -> Any:
        return self._asked(_SOLVER)(*args, **kwargs)

    def _asked(self, name: str) -> Any:
        _remove(self)
        return getattr(import_module(_MODULE), name)


def _remove(stand_in: ModuleType) -> None:
    if sys.modules.get(_MODULE) is stand_in:
        del sys.modules[_MODULE]
