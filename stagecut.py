"""The front door: `import stagecut` in Python, `stagecut` on the command line. All of it lies in the packages."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passes.compilation.api import compile_model as compile_model
    from passes.compilation.auto import auto_partition as auto_partition
    from passes.compilation.compare import compare_machines as compare_machines
    from runtime.pipeline import Pipeline as Pipeline

__version__ = "0.1.0"

_PLACES = {
    "compile_model": "passes.compilation.api",
    "auto_partition": "passes.compilation.auto",
    "compare_machines": "passes.compilation.compare",
    "Pipeline": "runtime.pipeline",
}
_PACKAGES = ("ir", "passes", "codegen", "runtime")
_PLANNING = ("compile", "recut", "compare")

__all__ = ["Pipeline", "auto_partition", "compare_machines", "compile_model"]


def __getattr__(name: str) -> Any:
    """An entry point, imported when it is asked for: torch takes seconds, and the compiler need not be installed."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_packages()
    module = _PLACES[name]
    if module.startswith("runtime."):
        return getattr(import_module(module), name)
    return getattr(import_module("passes.cli.loading").load(module, f"stagecut.{name}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def check_packages() -> None:
    """Raise ImportError, with the place, where a folder or file of the user's hides one of our packages."""
    home = Path(__file__).resolve().parent
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is None:
            raise ImportError(f"stagecut is not all there: the package {name!r} is missing; install it again")
        places = [*(spec.submodule_search_locations or ()), spec.origin]
        found = Path(str(places[0])).resolve()
        if found.parent != home:
            raise ImportError(
                f"{found} hides the package {name!r} of stagecut; use the command `stagecut`, which does not look "
                f"in that folder, or start Python from another one, or rename {found.name}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of this process, and end the process with its status."""
    ended: list[int] = []
    if arguments is None and sys.argv[1:2] and sys.argv[1] in _PLANNING:
        atexit.register(_end_at_once, ended)  # first, and so called last
    try:
        check_packages()
    except ImportError as e:
        sys.exit(_refused(e))
    try:
        run = import_module("passes.cli.main").run
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    try:
        run(arguments)
    except SystemExit as e:
        ended.append(e.code if isinstance(e.code, int) else 0 if e.code is None else 1)
        raise


def _end_at_once(ended: Sequence[int]) -> None:
    """End the process with the status in `ended`, if it has one: to free the objects of a plan takes seconds."""
    with suppress(OSError, ValueError):  # a closed pipe has a status of its own
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        for status in ended:
            os._exit(status)


def _refused(error: ImportError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
