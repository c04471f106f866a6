"""The index of an artifact folder, `manifest.json`: the border between compiler and runtime."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from runtime.errors import ManifestError
from runtime.manifest.digests import seal_of
from runtime.manifest.json_table import UnknownKey, as_table, from_json, spread_json
from runtime.manifest.schema_2 import from_schema_2

SCHEMA = 3

FILE = "manifest.json"

TOKENIZER = "tokenizer"  # the folder with the files of a tokenizer

ADAPTER = "adapter"  # the input by which rows choose from the adapters

POOL_OF = {"table": "pages", "window_table": "window_pages", "slots": "slots", "source_table": "source_pages"}
"""The inputs of a decoder's step that say where in pools its texts lie, with the size of these (`Generation.sizes`)."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that crosses the border of a stage."""

    name: str
    dtype: str  # as torch spells it: "float32"
    shape: tuple[int | str, ...]  # numbers, or Python expressions over the symbols


@dataclass(frozen=True)
class Symbol:
    """A size that may change from batch to batch."""

    min: int
    max: int | None  # None: no limit
    example: int  # its value when the model was captured


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model's `forward`."""

    name: str
    kind: str  # a name in inspect.Parameter: "POSITIONAL_OR_KEYWORD"
    optional: bool = True  # whether callers may leave it out: its captured value is the model's default


@dataclass(frozen=True)
class CallSignature:
    """The parameters and results of a call.  `arguments` and `returns` are trees: see runtime/call/trees/tree.py."""

    parameters: tuple[Parameter, ...]
    arguments: dict[str, Any]
    returns: dict[str, Any]


@dataclass(frozen=True)
class Receive:
    """An argument of a stage's `forward`: an input of the model, or a tensor from another stage."""

    tensor: Tensor
    source: int | None  # the stage that sends it; None: an input of the model


@dataclass(frozen=True)
class Send:
    """One of the tensors that a stage's `forward` returns."""

    tensor: Tensor
    stages: tuple[int, ...]  # that receive it
    outputs: tuple[int, ...]  # its indices among the outputs of the model


@dataclass(frozen=True)
class ModelNode:
    """A call of an operator of the model, whatever stage runs it."""

    op: str  # as dumps print it: "aten.add.Tensor"
    reads: tuple[str, ...]  # values, in the order of the arguments
    makes: tuple[Tensor, ...]
    repeats: bool  # whether several stages may run it: it is cheap, deterministic and without side effects
    digest: str  # of the whole call, numbers among its arguments included


@dataclass(frozen=True)
class ModelWeight:
    """A parameter, a buffer, a constant or a state of the model."""

    tensor: Tensor  # under the name by which nodes read it
    names: tuple[str, ...]  # in the model; several for a tied weight
    state: bool  # whether a call changes it


@dataclass(frozen=True)
class NodeRun:
    """A node that a stage runs."""

    node: str  # the first value that it makes
    line: int  # of the stage's file
    spelled: str  # a word of its line, the operator: "Add", "linear"; empty where it has none
    digest: str  # of the call, as the stage has it


@dataclass(frozen=True)
class HeldTensor:
    """A tensor in the weights file of a stage, or in the checkpoint that the file refers to."""

    weight: str  # the name of a ModelWeight's tensor
    dtype: str
    shape: tuple[int, ...]
    crc32: str = ""  # of its bytes; empty if the file has no copy of them
    becomes: str = ""  # the value that the stage puts into it, if it is a state
    zeros: bool = False  # a pool: it is made of zeros where the stage is loaded, and no file has it


@dataclass(frozen=True)
class ProgramStage:
    """The part of a stage in one program: its module, and the tensors that it receives and sends."""

    module: str  # file name: "stage_0.py"
    cls: str  # class name: "Stage0"
    receives: tuple[Receive, ...]  # in the order of forward's parameters
    sizes: tuple[str, ...]  # symbols that forward takes as keyword arguments
    sends: tuple[Send, ...]  # in the order of forward's results
    state: tuple[str, ...]  # names of buffers that a call changes
    runs: tuple[NodeRun, ...] = ()  # in order
    holds: dict[str, HeldTensor] = field(default_factory=dict)  # by name in the stage's module
    terms: str = ""  # the `terms` of the program that it was cut from
    lines: dict[str, str] = field(default_factory=dict)  # of the module, by number: crc32 of the words of each


@dataclass(frozen=True)
class StageEntry:
    """One stage: its weights, which all programs share, and its device."""

    weights: str  # file name: "stage_0.safetensors"
    device: str  # that it was planned for
    nbytes: int  # bytes of its weights


@dataclass(frozen=True)
class CheckpointFile:
    """A file of the checkpoint that stages read weights from, without a copy."""

    path: str  # relative to the artifact folder
    nbytes: int
    sample: str  # the file's sample_hash
    stages: tuple[int, ...]  # that read the file


@dataclass(frozen=True)
class Operator:
    """An operator from outside torch that stages run."""

    name: str  # "torchvision::nms"
    module: str  # whose import registers it; "" if that is not known
    library: str  # the distribution of the module, as pip calls it; "" for a file of the user's
    version: str  # of the library, where the stages were cut
    stages: tuple[int, ...]  # that run it


@dataclass(frozen=True)
class Microbatching:
    """The dimension of each input and output along which a batch may be split, as the compiler proved."""

    symbol: str | None = None  # the size that is split; None: a batch cannot be split
    inputs: tuple[int | None, ...] = ()  # None: every microbatch takes the whole tensor
    outputs: tuple[int | None, ...] = ()  # None: every microbatch returns the same tensor
    reason: str = "its artifact does not say along which size; compile the model again"  # where there is no symbol


@dataclass(frozen=True)
class PaddedInput:
    """An input whose rows may be made longer."""

    name: str
    dim: int  # along which elements are added behind those that are there
    value: int = 0  # of these elements
    mask: bool = False  # whether it tells padding, which has this value, from other elements, which have 1 - `value`


@dataclass(frozen=True)
class Padding:
    """The padding of rows to one length that changes their outputs by no more than rounding, as the compiler found."""

    symbol: str | None = None  # the length; None: rows are not padded
    inputs: tuple[PaddedInput, ...] = ()  # that have this length
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)  # name -> dimensions to cut to the length
    reason: str = "its artifact does not say along which size; compile the model again"  # where there is no symbol


@dataclass(frozen=True)
class CountedValue:
    """The number of elements of an input that must have a value."""

    input: str  # its name
    value: int
    count: str  # a Python expression over the symbols: "16*images"
    images: str = ""  # an input `[texts, images, …]`, for each of whose images that is not all zeros there are so many


@dataclass(frozen=True)
class RowProducts:
    """The products of the numbers in each row of an input, as of grids of patches, which must add up to a size."""

    input: str  # its name
    multiples: tuple[int, ...]  # of which the numbers of a row must be, each 1 or more
    count: str  # a Python expression over the symbols: "patches"


@dataclass(frozen=True)
class DescribedPlaces:
    """The places of a value in each text of an input, which the rows of a second input describe one after the other.

    A row describes as many as the product of its numbers, each over one of the divisors and rounded down.
    """

    input: str  # its name
    value: int
    mask: str  # the name of an input that is 0 where elements do not count; "" where all do
    rows: str  # the name of the input that describes them
    divisors: tuple[int, ...]  # of the numbers of a row, which are at least these
    runs: bool = True  # whether those of a row are a run of their own
    most: tuple[str, ...] = ()  # expressions over the symbols that the numbers are not above; none: there is no limit


@dataclass(frozen=True)
class ProgramEntry:
    """One program: what a call of it takes and returns, and what each stage does in it."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: dict[str, Symbol]
    guards: tuple[str, ...]  # conditions on the sizes, as Python expressions: "height % 8 == 0"
    signature: CallSignature
    stages: tuple[ProgramStage, ...]  # as many as the artifact has
    condition: dict[str, Any] = field(default_factory=dict)  # values that arguments must have, by name
    microbatching: Microbatching = Microbatching()
    padding: Padding = Padding()
    layouts: tuple[tuple[int, ...], ...] = ()  # of the inputs: their dimensions, the outermost in memory first
    nodes: tuple[ModelNode, ...] = ()  # of the uncut model, each once, in order
    returns: tuple[str, ...] = ()  # the values that are the outputs
    updates: dict[str, str] = field(default_factory=dict)  # name of a state -> the value that it holds after a call
    index_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)  # input -> its least and largest value
    counts: tuple[CountedValue, ...] = ()
    row_products: tuple[RowProducts, ...] = ()
    described: tuple[DescribedPlaces, ...] = ()
    promise: str = ""  # sha256 of what calls take and return; "" if an older version wrote it

    def with_pool_sizes(self, sizes: Mapping[str, int]) -> ProgramEntry:
        """The same for pools of other `sizes`: the inputs that say where in them texts lie have other values."""
        ranges = dict(self.index_ranges)
        for name, (least, _) in self.index_ranges.items():
            if count := sizes.get(POOL_OF.get(name, ""), 0):
                ranges[name] = (-count if least < 0 else 0, count - 1)
        return dataclasses.replace(self, index_ranges=ranges)


@dataclass(frozen=True)
class MediaPlaces:
    """The places of media in a prompt, and the positions of its ids where these are not their indices."""

    token: int  # the id in whose places media stand
    count: int  # of these in a prompt
    offsets: tuple[tuple[int, ...], ...] = ()  # row of positions -> what is added to the index of each place and other
    counts: tuple[int, ...] = ()  # places before other ids, whose offsets stand behind those of places, in this order
    grids: str = ""  # the input that says frames, rows and columns of patches of each image, which may be any
    merge: int = 0  # rows and columns of patches of a place
    indices: int = 0  # rows of positions that are indices, before those of frames, rows and columns
    each: int = 0  # places of an image, of which there may be any number; 0: as many as `count` says, or the grids
    divisors: tuple[int, ...] = ()  # of rows and columns of pixels, which `grids` says then: the product is of places
    padded: str = (
        ""  # the input `[texts, images, …]` of images, where zeros are none; "": there is a row for each image
    )


@dataclass(frozen=True)
class Generation:
    """The generation of texts by a decoder: its pools of pages, and what ends a text.  `page` is 0 for other models."""

    page: int = 0  # tokens a page
    pages: int = 0  # of the pools of layers that attend to the whole text; page 0 belongs to no text
    window: int = 0  # tokens that sliding layers look at; 0 if there are none
    window_pages: int = 0  # of the pools of sliding layers
    slots: int = 0  # of the pools that have one state a text; slot 0 belongs to no text
    max_length: int = 0  # tokens of a text, prompt included
    vocabulary: int = 0  # ids are less
    stop: tuple[int, ...] = ()  # ids that end a text
    pad: int = 0  # the id behind the end of a text that is shorter than others
    defaults: dict[str, Any] = field(default_factory=dict)  # what the checkpoint says of sampling: {"temperature": 0.6}
    together: str = "any"  # the texts of a step: "any"; "even", with as many new tokens; "equal", as long, too; "alone"
    chunk: int = 0  # new tokens of a text in one step at most; 0: any number
    cached: bool = True  # False: each step computes its texts as a whole
    source: int = 0  # states of an encoder that a text reads at most; 0 for a decoder without one
    source_pages: int = 0  # of the pools that hold them
    begin: tuple[int, ...] = ()  # ids with which a text of such a decoder begins
    media: dict[str, MediaPlaces] = field(default_factory=dict)  # by the name of a program for prompts with media

    @property
    def sizes(self) -> dict[str, int]:
        """The first sizes of the pools, by the names that stage files give them."""
        return {name: getattr(self, name) for name in ("pages", "window_pages", "slots", "source_pages")}

    def with_room_for(self, tokens: int) -> Generation:
        """The same with pools for so many tokens of all texts together, in place of those planned; 0 for as planned."""
        if not tokens:
            return self
        texts, planned = max(tokens // self.max_length, 1), max((self.pages - 1) * self.page // self.max_length, 1)
        scaled = {name: 1 + -(-(n - 1) * texts // planned) if n else 0 for name, n in self.sizes.items()}
        return dataclasses.replace(self, **{**scaled, "pages": 1 + -(-tokens // self.page)})


@dataclass(frozen=True)
class Manifest:
    """Everything that the runtime needs besides the stage files."""

    name: str
    programs: tuple[ProgramEntry, ...]  # a call runs the first one that it fits
    stages: tuple[StageEntry, ...]
    files: dict[str, str]  # file name -> sha256 of its content
    plan: dict[str, Any]  # the compiler's predictions, for people and reports
    links: tuple[CheckpointFile, ...] = ()  # empty if the stages have copies of their weights
    operators: tuple[Operator, ...] = ()  # from outside torch
    helpers: tuple[str, ...] = ()  # names of files in the folder that stage files import: "paged_attention.py"
    weights: tuple[ModelWeight, ...] = ()  # of the uncut model
    placement: tuple[str, ...] = ()  # the device of each stage
    settings: dict[str, str] = field(default_factory=dict)  # of torch, at the compilation
    generation: Generation = field(default_factory=Generation)
    adapters: tuple[str, ...] = ()  # the names of those that rows choose from, by the input `adapter`; 0 is none
    seal: str = ""  # sha256 of all the rest, as the compiler wrote it
    schema: int = SCHEMA

    @property
    def added_adapters(self) -> tuple[str, ...]:
        """The names of those adapters that were added once the artifact was written, each with a file."""
        return tuple(name for name in self.adapters if added_adapter(name) in self.files)

    def with_room_for(self, tokens: int) -> Manifest:
        """The manifest of a decoder with other pools, see `Generation.with_room_for`.

        Raises ManifestError for what is no decoder, unless `tokens` is 0.
        """
        if tokens and not self.generation.page:
            raise ManifestError(
                f"{self.name} continues no texts, so it has no room for tokens; compile with --generate"
            )
        if not tokens:
            return self
        generation = self.generation.with_room_for(tokens)
        programs = tuple(program.with_pool_sizes(generation.sizes) for program in self.programs)
        return dataclasses.replace(self, generation=generation, programs=programs)

    def write(self, folder: Path) -> None:
        """Write `folder`/manifest.json.  Raises OSError."""
        write_table(folder, as_table(self))

    def write_sealed(self, folder: Path) -> None:
        """Write `folder`/manifest.json with its seal, which any later change breaks.  Raises OSError."""
        table = as_table(self)
        write_table(folder, {**table, "seal": seal_of(table)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `folder`/manifest.json.  Raises ManifestError with the file and the fault."""
        path = folder / FILE
        try:
            table = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ManifestError(_no_artifact(folder)) from None
        except (OSError, ValueError) as e:
            raise ManifestError(f"cannot read {path}: {e}") from e
        found = table.get("schema") if isinstance(table, dict) else None
        if found is None:
            raise ManifestError(_no_artifact(folder))
        if isinstance(found, int) and found > SCHEMA:
            raise ManifestError(_newer(path, found, f"2 and {SCHEMA}"))
        if found not in (2, SCHEMA):
            raise ManifestError(f"{path} has schema {found}, this runtime reads {SCHEMA}; compile the model again")
        try:
            manifest = from_json(cls, from_schema_2(table) if found == 2 else table)
        except UnknownKey as e:
            if table.get("seal") == seal_of(table):  # nothing was damaged
                raise ManifestError(_newer(path, found, f"2 and {SCHEMA} without the key `{e}`")) from None
            raise ManifestError(f"{path} is damaged (it has an unknown key `{e}`); compile the model again") from None
        except (AttributeError, KeyError, TypeError) as e:
            raise ManifestError(f"{path} is damaged ({type(e).__name__}: {e}); compile the model again") from e
        if not manifest.programs:
            raise ManifestError(f"{path} is damaged (it lists no program); compile the model again")
        for program in manifest.programs:
            if len(program.stages) != len(manifest.stages):
                raise ManifestError(
                    f"{path} is damaged (program {program.name} has {len(program.stages)} stages of "
                    f"{len(manifest.stages)}); compile the model again"
                )
        return manifest


def is_sealed(folder: Path) -> bool:
    """Whether the manifest of a folder is as the compiler wrote it.  Raises OSError and ValueError."""
    table = json.loads((folder / FILE).read_text())
    return table.get("seal") == seal_of(table)


def added_adapter(name: str) -> str:
    """The file, in the artifact, of an adapter that was added once the artifact was written."""
    return f"adapters/{name}.safetensors"


def write_table(folder: Path, table: dict[str, Any]) -> None:
    """Write the JSON of a manifest, what is short on one line.

    Raises OSError; the manifest that was there is then as it was.
    """
    fresh = folder / f".{FILE}.{token_hex(4)}"
    try:
        fresh.write_text(spread_json(table) + "\n")
        fresh.replace(folder / FILE)
    finally:
        fresh.unlink(missing_ok=True)


def _newer(path: Path, found: int, known: str) -> str:
    return (
        f"{path} was written by a newer version of stagecut: its schema is {found}, this version reads {known}; "
        "update stagecut here, or compile the model again with this version"
    )


def _no_artifact(folder: Path) -> str:
    fault = "is a file" if folder.exists() else "does not exist"
    if folder.is_dir():
        fault = f"has a {FILE} of something else" if (folder / FILE).exists() else f"has no {FILE}"
    return f"{folder} is not an artifact folder: it {fault}; `stagecut compile SOURCE -o OUT` writes one"
