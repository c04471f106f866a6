"""A number -> a fault put into an artifact, and what was found.

The number seeds all that is random about a fault.  Faults of the folder come in three grades: the change alone; the
change with the hashes in the manifest made to fit; and the seal made to fit as well, as if the compiler itself had been
wrong.  The last are found by what the manifest says twice.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import torch

from runtime.check.artifact import faults
from runtime.errors import ManifestError
from runtime.manifest.digests import file_hash, seal_of
from runtime.manifest.manifest import FILE
from tests.faults.of_files import FILE_FAULTS, WEIGHTS_FAULTS
from tests.faults.of_plan import PLAN_FAULTS, Change
from tests.faults.of_source import ONLY_BY_HASH, SOURCE_FAULTS
from tests.faults.of_table import TABLE_FAULTS, some_stage
from tests.faults.sample import Sample


@dataclass(frozen=True)
class Outcome:
    """A fault that was put in, and what was found."""

    number: int
    kind: str
    grade: str
    found: tuple[str, ...]


def inject_in_sample(scratch: Path, number: int) -> Outcome:
    """The outcome of fault `number` in the sample of this process, which is compiled to `scratch` once."""
    return inject(_sample(scratch), number, scratch)


@cache
def _sample(scratch: Path) -> Sample:
    torch.set_num_threads(1)
    sample = Sample.compiled(scratch / f"sample_{os.getpid()}")
    assert not [*faults(sample.folder)]
    return sample


def inject(sample: Sample, number: int, scratch: Path) -> Outcome:
    """Put in fault `number` and look for it, in a folder that is removed again."""
    random, folder = Random(number), scratch / f"fault_{number}"
    kinds = [*TABLE_FAULTS, *SOURCE_FAULTS, *WEIGHTS_FAULTS, *FILE_FAULTS]
    try:
        if number % 8 == 0:
            kind, grade = [*PLAN_FAULTS][number // 8 % len(PLAN_FAULTS)], "plan"
            return Outcome(number, kind, grade, _of_plan(sample, PLAN_FAULTS[kind], random, folder))
        shutil.copytree(sample.folder, folder)
        kind = kinds[(number - number // 8 - 1) % len(kinds)]  # each in turn, whatever their number
        grade = _in_folder(folder, kind, random)
        return Outcome(number, kind, grade, _found(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(faults(folder))
    except ManifestError as e:
        return (str(e),)


def _of_plan(sample: Sample, change: Change, random: Random, folder: Path) -> tuple[str, ...]:
    changed = change(sample.plan, random)
    assert changed != sample.plan
    try:
        sample.write(changed, folder)
    except Exception as e:  # code that cannot be written is not written
        return (f"{type(e).__name__}: {e}",)
    return _found(folder)


def _in_folder(folder: Path, kind: str, random: Random) -> str:
    table = json.loads((folder / FILE).read_text())
    before = json.dumps(table)
    if kind in TABLE_FAULTS:
        while json.dumps(table) == before:
            TABLE_FAULTS[kind](table, random)
        grades = ["alone", "sealed"]
    elif kind in SOURCE_FAULTS:
        path = folder / some_stage(table, random)["module"]
        lines = path.read_text().splitlines(keepends=True)
        while "".join(lines) == path.read_text():
            lines = SOURCE_FAULTS[kind](lines, random)
        path.write_text("".join(lines))
        grades = ["alone", "hashes", *["sealed"] * (kind not in ONLY_BY_HASH)]
    else:
        changes = {**WEIGHTS_FAULTS, **FILE_FAULTS}
        changes[kind](folder, table, random)
        grades = ["alone", *["hashes", "sealed"] * (kind in WEIGHTS_FAULTS)]
    grade = random.choice(grades)
    if grade != "alone":
        for name in table["files"]:
            table["files"][name] = file_hash(folder / name)
    if grade == "sealed":
        table["seal"] = seal_of(table)
    (folder / FILE).write_text(json.dumps(table))
    return grade
