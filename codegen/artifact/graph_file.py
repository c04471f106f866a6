"""The uncut graph in an artifact folder, for another cut: `graph.json.gz`, and tensors that no stage holds."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from codegen.artifact.weights import StageTensor, write_copies
from ir.checkpoint.files import read_stage_weights
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from ir.graph import Constant, State
from ir.plan import StagePlan
from ir.serialized.graph_table import Uncut, graph_table, uncut_of

GRAPH = "graph.json.gz"
TENSORS = "graph.safetensors"


def write_graph(folder: Path, uncut: Uncut, held: Mapping[int, str]) -> Iterator[Path]:
    """Write a graph, and those of its tensors that no stage holds; yields the files.

    `held` has the names of the others in the manifest's `weights`, by `id`.
    """
    table, tensors = graph_table(uncut)
    places = [held.get(id(tensor)) for tensor in tensors]
    own = {str(i): StageTensor(Held(t), t.dtype) for i, t in enumerate(tensors) if places[i] is None}
    text = json.dumps({**table, "tensors": places}, separators=(",", ":"))
    (folder / GRAPH).write_bytes(gzip.compress(text.encode(), mtime=0))
    yield folder / GRAPH
    if own:
        write_copies(folder / TENSORS, own)
        yield folder / TENSORS


def held_data(plan: StagePlan) -> dict[int, str]:
    """The names of the constants and states whose first values the stages of a plan hold, by the `id` of their data."""
    stored = {v for stage in plan.stages for v in stage.stored if isinstance(v, (Constant, State))}
    return {id(v.data): v.name for v in stored if v.data is not None}


def read_graph(folder: Path, held: Callable[[str], torch.Tensor]) -> Uncut:
    """The graph of an artifact; `held` gives the tensor of a name in the manifest's `weights`.

    Raises SourceError where the folder has no graph, or one that cannot be read, with the reason.
    """
    try:
        table = json.loads(gzip.decompress((folder / GRAPH).read_bytes()))
        return uncut_of(table, _data(folder, table, held))
    except FileNotFoundError:
        raise SourceError(f"{folder} has no {GRAPH}, as artifacts of earlier versions; {_AGAIN}") from None
    except (OSError, ValueError, EOFError, zlib.error) as e:
        raise SourceError(f"cannot read {folder / GRAPH}: {e}; {_AGAIN}") from e
    except SourceError as e:
        raise SourceError(f"{folder} cannot be cut again: {e}; {_AGAIN}") from e


_AGAIN = "compile the model itself"


def _data(folder: Path, table: Any, held: Callable[[str], torch.Tensor]) -> Callable[[int], torch.Tensor]:
    """The function that reads the data of a number."""
    places = table.get("tensors", []) if isinstance(table, dict) else []
    own = read_stage_weights(folder / TENSORS) if (folder / TENSORS).is_file() else {}

    def data(number: int) -> torch.Tensor:
        if (name := places[number]) is not None:
            return held(name)
        return own[str(number)].read(own[str(number)].dtype)

    return data
