"""Files of weights that torch did not write: refused, with what they are."""

from __future__ import annotations

from pathlib import Path

from ir.errors import SourceError

_LIBRARIES = {
    (".npy", ".npz"): "numpy",
    (".h5", ".hdf5", ".keras"): "Keras",
    (".msgpack",): "Flax",
    (".onnx",): "ONNX",
    (".pb", ".tflite"): "TensorFlow",
    (".mlmodel",): "Core ML",
    (".engine", ".plan"): "TensorRT",
    (".nemo",): "NeMo",
}
"""The libraries that write files of these names."""

FOREIGN = frozenset(suffix for suffixes in _LIBRARIES for suffix in suffixes)
_POINTER = b"version https://git-lfs"  # at the beginning of what git has in place of a large file


def require_own(file: Path) -> None:
    """Raise SourceError for a file that another library wrote, and for what git-lfs has in its place."""
    for suffixes, library in _LIBRARIES.items():
        if file.suffix in suffixes:
            raise SourceError(f"{file} is a file of {library}, which is not read: save its weights as .safetensors")
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise SourceError(f"{file} is a pointer of git-lfs in place of the file; fetch that: git lfs pull")
