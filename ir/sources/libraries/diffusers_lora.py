"""LoRA that diffusers saved for a pipeline: an adapter of each of its models, in one file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kinds.known import KINDS
from ir.checkpoint.adapters.settings import require_merged, require_names
from ir.checkpoint.files import header_notes, read_checkpoint
from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.formats.recognized import FUSE
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError

_FILE = "pytorch_lora_weights.safetensors"
_SETTINGS = "lora_adapter_metadata"  # a note in the file's header
_NAME = re.compile(r"(?P<model>\w+)\.(?P<name>.+\.lora_(A\.weight|B\.weight|magnitude_vector(\.weight)?))")


def pipeline_adapters(folder: Path, models: Collection[str]) -> Mapping[str, Adapter]:
    """The adapters in a folder, by the names of the pipeline's models.

    Raises SourceError for a folder that diffusers did not save, and for tensors under other names than peft's.
    """
    file = folder / _FILE
    if not file.is_file():
        raise SourceError(
            f"{folder} has no {_FILE}, as diffusers saves LoRA for a pipeline; an adapter of peft is for one model of "
            "the pipeline: merge it into that, and save the pipeline"
        )
    tables = defaultdict[str, dict[str, Tensorlike]](dict)
    for name, tensor in read_checkpoint(file)[""].items():
        found = _NAME.fullmatch(name)
        if found is None or found["model"] not in models:
            raise SourceError(f"{file} has {name}, which is for none of {', '.join(models)} as peft names it; {FUSE}")
        tables[found["model"]][found["name"]] = tensor
    said = parsed_json(header_notes(file).get(_SETTINGS, "{}"))
    return {model: Adapter(folder, _settings(folder, model, table, said), table) for model, table in tables.items()}


def _settings(folder: Path, model: str, table: Mapping[str, Tensorlike], said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model's adapter: those in the file, or else the rank of its tensors, with a scale of 1.

    Raises SourceError where the ranks differ and no settings say the scale, and for LoRA that is not merged.
    """
    own = {key.removeprefix(f"{model}."): value for key, value in said.items() if key.startswith(f"{model}.")}
    ranks = {tensor.shape[0] for name, tensor in table.items() if name.endswith(".lora_A.weight")}
    if not own and len(ranks) != 1:
        raise SourceError(f"{folder} has LoRA of {len(ranks)} ranks for {model}, and nothing says its scale; {FUSE}")
    rank = next(iter(ranks), 0)
    beside = {"use_dora": True} if any(".lora_magnitude_vector" in name for name in table) else {}
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, **beside, **own}
    require_merged(folder, settings, KINDS)
    require_names(folder, settings)
    return settings
