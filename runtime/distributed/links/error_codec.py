"""Errors as bytes: raised in one process, raised again in another."""

from __future__ import annotations

import builtins
import json
import traceback

from runtime.errors import DeviceError, DistributedError, ManifestError, StageError, text_of

_OURS = {cls.__name__: cls for cls in (DeviceError, DistributedError, ManifestError)}


class RemoteTraceback(Exception):
    """The traceback in the other process, as `__cause__` of the error raised here."""

    def __str__(self) -> str:
        return f"in the other process\n{self.args[0]}"


def encode(error: Exception) -> bytes:
    """An error as JSON: its class by name, its text and its traceback; of a StageError, its cause as well."""
    table = _plain(error)
    if isinstance(error, StageError) and error.__cause__ is not None:
        table = {"stage": error.stage, "device": error.device, "cause": _plain(error.__cause__)}
    return json.dumps(table).encode()


def decode(data: bytes) -> Exception:
    """The error that `encode` was given in another process."""
    table = json.loads(data)
    if "cause" in table:
        return StageError(table["stage"], table["device"], _raised(table["cause"]))
    return _raised(table)


def _plain(error: BaseException) -> dict[str, str]:
    where = "".join(traceback.format_tb(error.__traceback__))
    return {"type": type(error).__name__, "text": text_of(error), "traceback": where}


def _raised(table: dict[str, str]) -> Exception:
    """An error of the same class if that is Python's or ours, else of a new RuntimeError with the same name."""
    name, text = table["type"], table["text"]
    cls = _OURS.get(name) or getattr(builtins, name, None)
    error: Exception | None = None
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            error = cls(text)
        except TypeError:  # UnicodeDecodeError takes five arguments
            error = None
    if error is None or str(error) != text:  # KeyError quotes its text
        error = type(name, (RuntimeError,), {})(text)
    if table["traceback"]:
        error.__cause__ = RemoteTraceback(table["traceback"])
    return error
