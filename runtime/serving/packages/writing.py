"""The files of a package: templates, filled in with what an artifact says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest, Tensor
from runtime.output_files import write_files
from runtime.serving.interface import Interface
from runtime.serving.packages.triton_config import config_values, sizes_with
from runtime.serving.protocols.oip import DATATYPES

_TRITON_TEXT = {"input_ids": [1, 2, 3], "max_tokens": 16}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def write_package(
    artifact: Path, server: str, out: Path, name: str, flags: Sequence[str], force: bool = False
) -> list[Path]:
    """Write the package of an artifact for a server, and return its files.

    Those of an earlier package are replaced; files that are in the way are moved aside with `force`.  Raises InputError
    for them, for a name or an artifact that the server cannot take, or where files cannot be written; ManifestError.
    """
    manifest = Manifest.read(artifact)
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a model: letters, digits, dots and dashes", "give one with --name")
    if artifact.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"{out} is in the artifact, whose files stagecut check counts", "name another folder")
    values = _values(artifact, manifest, name, flags)
    texts = {path.replace("NAME", name): _filled(template, values) for path, template in _templates(server)}
    try:
        return write_files(out, texts, force)
    except OSError as e:
        raise InputError(f"cannot write {e.filename}: {e.strerror}") from e


def _templates(server: str) -> Iterator[tuple[str, str]]:
    """Each file of a server's package: its path, and its text with {{…}}.  Python files end with .txt here."""
    folder = Path(__file__).parent / "templates" / server
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        yield file.relative_to(folder).as_posix().removesuffix(".txt"), file.read_text(encoding="utf-8")


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _values(artifact: Path, manifest: Manifest, name: str, flags: Sequence[str]) -> dict[str, str]:
    interface = Interface(manifest)
    accelerators = {stage.device for stage in manifest.stages if not stage.device.startswith("cpu")}
    told = json.dumps([*flags])
    return {
        "name": name,
        "resource": _resource(name),
        "artifact": str(artifact.resolve()),
        "flags": told,
        "flags_escaped": json.dumps(told),
        "command_flags": "".join(f", {json.dumps(flag)}" for flag in flags),
        "gpus": str(len(accelerators)),
        "example": json.dumps(_example_request(interface)),
        "triton_action": "generate" if interface.writes_texts else "infer",
        "triton_example": json.dumps(_TRITON_TEXT if interface.writes_texts else _example_request(interface)),
        **config_values(interface),
    }


def _resource(name: str) -> str:
    """The name as Kubernetes and Docker take it: lower-case letters, digits and dashes, a letter first."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")
    return found if found[:1].isalpha() else f"model-{found}"


def _example_request(interface: Interface) -> dict[str, Any]:
    if interface.writes_texts:
        return {"prompt": [1, 2, 3], "max_tokens": 16}
    return {"inputs": [_example(tensor) for tensor in interface.inputs]}


def _example(tensor: Tensor) -> dict[str, Any]:
    shape, value = [*sizes_with(tensor, 1)], True if tensor.dtype == "bool" else 1
    count = 1
    for size in shape:
        count *= size
    return {"name": tensor.name, "datatype": DATATYPES.get(tensor.dtype, ""), "shape": shape, "data": [value] * count}
