"""Files of weights that torch did not write: refused, with what they are."""

from __future__ import annotations

from pathlib import Path

from ir.checkpoint.formats.torch_archive import ZIP
from ir.errors import SourceError

_LIBRARIES = {
    (".npy", ".npz"): "numpy",
    (".h5", ".hdf5", ".keras"): "Keras",
    (".msgpack",): "Flax",
    (".onnx",): "ONNX",
    (".pb", ".tflite", ".ckpt.index"): "TensorFlow",
    ("_CHECKPOINT_METADATA",): "Orbax",
    (".zarray",): "zarr",
    (".pte",): "ExecuTorch",
    (".ggml",): "GGML",
    (".mlmodel",): "Core ML",
    (".engine", ".plan"): "TensorRT",
    (".nemo",): "NeMo",
    (".pdparams", ".pdiparams"): "PaddlePaddle",
    (".ot",): "tch, of Rust",
    (".joblib",): "joblib",
}
"""The libraries that write files whose names end so."""

_BEGINNINGS = {
    b"version https://git-lfs": "is a pointer of git-lfs in place of the file; fetch that: git lfs pull",
    b"<": "is a web page, or other text, in place of the file; fetch that again",
    b"\x1f\x8b": "is compressed by gzip; unpack it: gunzip",
    b"BZh": "is compressed by bzip2; unpack it: bunzip2",
    b"\xfd7zXZ": "is compressed by xz; unpack it: unxz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it: unzstd",
    b"7z\xbc\xaf": "is compressed by 7-Zip; unpack it: 7z x",
    b"\x89HDF": "is a file of Keras, or another one of HDF5, which is not read: save its weights as .safetensors",
    b"lmgg": "is a file of GGML, which is not read; give the checkpoint that it was made of",
    b"GGUF": "is a GGUF file; give it a name that ends with .gguf, and name it in place of the folder",
}
"""What files that begin so are, and what to do."""


def library_of(file: Path) -> str:
    """The library that writes files of such a name; empty where it may be torch."""
    return next((library for ends, library in _LIBRARIES.items() if file.name.endswith(ends)), "")


def is_safetensors(file: Path) -> bool:
    """Whether a file, whatever its name, begins as one of safetensors: with the length of a table in it."""
    with file.open("rb") as opened:
        begin = opened.read(9)
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= file.stat().st_size - 8


def require_own(file: Path) -> None:
    """Raise SourceError for a file that another library wrote, and for what is in the place of one, as of git-lfs.

    So it is for one of torch.save that is named .safetensors.
    """
    if library := library_of(file):
        raise SourceError(f"{file} is a file of {library}, which is not read: save its weights as .safetensors")
    if file.suffix == ".bin" and file.with_suffix(".xml").is_file():
        raise SourceError(f"{file} is a file of OpenVINO, which is not read: give the folder that it was made of")
    with file.open("rb") as opened:
        begin = opened.read(262)  # as far as the mark of tar's
    if is_safetensors(file):  # the length of whose header may begin like anything
        return
    if found := next((said for first, said in _BEGINNINGS.items() if begin.startswith(first)), None):
        raise SourceError(f"{file} {found}")
    if begin[257:].startswith(b"ustar"):
        raise SourceError(f"{file} is a tar archive; unpack it: tar xf")
    if file.suffix == ".safetensors" and begin.startswith(ZIP):
        raise SourceError(f"{file} is a file of torch.save in spite of its name; let that end with .bin")
