"""A model file, a checkpoint folder or a .pt2 -> the model, its example inputs and its weights.

source             what each of them becomes, and the options for reading it
neighbours         packages beside a model file that have the names of ours
model_file         a Python file that defines `model` and `example_inputs`
meta               modules built without memory for their parameters
program            a .pt2 that torch.export.save wrote
unpickled          such a file read without running pickled code
folders            the folder that is meant: an adapter's base, a snapshot in the hub's cache
sentences          folders of sentence-transformers: a transformer and the modules behind it
checkpoint_folder  a Hugging Face folder: config.json and weights
model_class        the configuration and the class that it names
gguf_model         the model in a GGUF file
libraries          folders of timm, open_clip and diffusers
switches           fields of its configuration that are set so that it can be exported
examples           example inputs: of its configuration, of sizes that the user names
adapter_choice     the example of a model that keeps adapters
kept               folders whose graph an earlier run kept: no model is made
decoder            a decoder as a module that continues texts token by token
"""

from __future__ import annotations

import re
from pathlib import Path

from ir.checkpoint.files import whose_names
from ir.checkpoint.formats.foreign import library_of, require_own
from ir.checkpoint.formats.gguf.file import is_gguf
from ir.checkpoint.layouts import WEIGHT_SUFFIXES
from ir.errors import SourceError
from ir.sources.checkpoint_folder import read_checkpoint_folder
from ir.sources.folders import CONFIG
from ir.sources.libraries.diffusers_folder import diffusers_folder
from ir.sources.libraries.diffusers_pipeline import diffusers_pipeline
from ir.sources.libraries.open_clip_folder import open_clip_folder
from ir.sources.libraries.timm_folder import timm_folder
from ir.sources.meta import with_values as with_values
from ir.sources.model_file import read_model_file
from ir.sources.program import read_program_file
from ir.sources.source import Reading as Reading
from ir.sources.source import Source as Source
from ir.sources.source import opened as opened
from ir.sources.source import uncompiled as uncompiled

_LIBRARIES = (timm_folder, open_clip_folder, diffusers_folder, diffusers_pipeline)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".llamafile")
_WAYS = "give a model file such as examples/gpt2.py, a checkpoint folder or a .pt2"


def read_source(text: str, reading: Reading = Reading()) -> Source:  # noqa: B008 - frozen
    """Read `model.py`, `model.py:function`, a checkpoint folder or a .pt2.

    Raises SourceError that says what is missing, and where.
    """
    path = Path(text)
    if path.is_dir() or is_gguf(path):
        known = next(filter(None, (known(path) for known in _LIBRARIES)), None)
        return read_checkpoint_folder(path, reading) if known is None else known.read(reading)
    path, function = path_of(text), text.partition(":")[2]
    if not path.is_file():
        hub = re.fullmatch(r"([\w.-]+/)?[\w-][\w.-]*", text) and path.suffix not in (".py", ".pt2")
        ways = [*([] if "/" in text and hub else [_WAYS]), *([_download(text)] if hub else [])]
        raise SourceError(f"there is no file {path}; {'; '.join(ways)}")
    if path.suffix == ".pt2":
        return read_program_file(path, reading)
    if path.suffix != ".py":
        if library_of(path):
            require_own(path)
        raise SourceError(f"{path} is neither a Python file nor an exported program; {_instead(path)}")
    return read_model_file(path, reading, function or "model")


def _instead(path: Path) -> str:
    """The advice for a file that is no source."""
    if path.suffix in _ARCHIVES:
        return "unpack it, and give the folder in it"
    if (path.parent / CONFIG).is_file():
        return f"give its folder, {path.parent}"
    if path.suffix in WEIGHT_SUFFIXES:
        if whose := whose_names(path):
            return whose
        return f"give a model file that makes the model, and the weights with --checkpoint {path}"
    return _WAYS


def _download(name: str) -> str:
    folder = name.rpartition("/")[2]
    return (
        f"if it is a model of the Hugging Face hub, download it first, and give the folder: "
        f"hf download {name} --local-dir {folder}"
    )


def path_of(text: str | Path) -> Path:
    """The file or folder that the name of a source begins with: `model.py` of `model.py:function`."""
    path = Path(text)
    return path if path.is_dir() else Path(str(text).partition(":")[0])
