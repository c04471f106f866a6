"""Files of torch.save that the processes of a job wrote, one each, with the parts of tensors that each of them has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any

from ir.checkpoint.formats.pickled import FileEntries, RankPart, read_pickled
from ir.checkpoint.formats.sharded import filled_by_pieces
from ir.checkpoint.tensors import Piece, Stored
from ir.errors import SourceError

_RANK = re.compile(r"(.*?rank[_-]?)(\d+)(.*)")
_NUMBER = re.compile(r"(\d+)")
_MOST_NUMBERS = 6  # of a file's name and its folder's, in which those of ranks may differ


def rank_files(file: Path) -> list[Path]:
    """The files of all ranks, where the name of one has the number of its rank."""
    if (named := _RANK.fullmatch(file.name)) is None:
        return [file]
    begin, _, end = named.groups()
    pattern = re.compile(rf"{re.escape(begin)}(\d+){re.escape(end)}")
    matches = ((other, pattern.fullmatch(other.name)) for other in file.parent.iterdir())
    return [other for _, other in sorted((int(m[1]), other) for other, m in matches if m)]


def is_of_one_job(files: Sequence[Path]) -> bool:
    """Whether files have the numbers of ranks in their names, and those named as the first one no other numbers."""
    own = _NUMBER.sub("", files[0].name) if files else ""
    alike = {file for file in files if _NUMBER.sub("", file.name) == own}
    return bool(files) and all("rank" in file.stem for file in files) and alike <= {*rank_files(files[0])}


def read_ranks(file: Path) -> dict[str, dict[str, Stored]]:
    """The tensors of a file of torch.save; those that it has a part of are joined with the files of the other ranks.

    Raises SourceError where parts are missing.
    """
    entries = read_pickled(file)
    if next(_rank_parts(entries), None) is None:
        return {key: dict(_whole(table)) for key, table in entries.items()}
    for files in _named_alike(file):
        ranks = [_read_as_rank(other) for other in files]
        places = {next(_rank_parts(rank)).coordinate for rank in ranks if any(_rank_parts(rank))}
        if len(places) == len(files):
            try:
                return _joined_ranks(file, entries, ranks)
            except SourceError:  # these differ in another number than that of the rank
                continue
    return _joined_ranks(
        file, entries, [entries if other == file else read_pickled(other) for other in rank_files(file)]
    )


def _whole(table: Mapping[str, Any]) -> Iterator[tuple[str, Stored]]:
    return ((name, entry) for name, entry in table.items() if isinstance(entry, Stored))


def _rank_parts(entries: FileEntries) -> Iterator[RankPart]:
    return (entry for table in entries.values() for entry in table.values() if isinstance(entry, RankPart))


def _named_alike(file: Path) -> Iterator[list[Path]]:
    """Files that may be those of the ranks: their names differ in numbers alone, or those of their folders do.

    First those that differ in one number, and of these the last one of the name.
    """
    own = _split(file)
    folder = file.absolute().parent
    beside = [other for other in folder.parent.iterdir() if other.is_dir()] if _NUMBER.search(folder.name) else []
    inside = [other for near in (folder, *(f for f in beside if f != folder)) for other in near.iterdir()]
    alike = {other: parts for other in inside if (parts := _split(other))[::2] == own[::2]}
    numbers = range(len(own) - 2, 0, -2)[:_MOST_NUMBERS]
    for count in range(1, len(numbers) + 1):
        for free in combinations(numbers, count):
            fixed = [i for i in numbers if i not in free]
            if len(found := [other for other, p in alike.items() if all(p[i] == own[i] for i in fixed)]) > 1:
                yield sorted(found)


def _split(file: Path) -> list[str]:
    """The names of a file's folder and of the file, with the numbers in them at odd places."""
    return _NUMBER.split(f"{file.absolute().parent.name}/{file.name}")


def _read_as_rank(file: Path) -> FileEntries:
    """The entries of a file that may be that of a rank; none where it is no file of torch.save."""
    try:
        return read_pickled(file)
    except (OSError, SourceError):
        return {}


def _joined_ranks(file: Path, entries: FileEntries, ranks: Sequence[FileEntries]) -> dict[str, dict[str, Stored]]:
    return {key: {name: _of_ranks(file, ranks, key, name) for name in table} for key, table in entries.items()}


def _of_ranks(file: Path, ranks: Sequence[FileEntries], key: str, name: str) -> Stored:
    parts = [rank.get(key, {}).get(name) for rank in ranks]
    mine = [part for part in parts if isinstance(part, RankPart)]
    if not mine:
        found = next(part for part in parts if isinstance(part, Stored))
        return found
    counts = [1 + max(place) for place in zip(*(part.coordinate for part in mine), strict=True)]
    boxes: dict[tuple[int, ...], Piece] = {}
    for part in mine:
        for piece in part.local.pieces:
            boxes.setdefault(_corner(part, counts), replace(piece, at=_corner(part, counts)))
    whole = filled_by_pieces(
        f"{file}, with the files of the other ranks,",
        name,
        mine[0].shape,
        list(boxes.values()),
        "; put the files of all ranks into one folder, under names that differ in the numbers of ranks alone, as "
        "rank0.pt and rank1.pt do, or gather the tensors before saving",
    )
    if not all(_in_order(part, counts) for part in mine):
        raise SourceError(f"{name} in {file} is divided in an order that is not known; gather it before saving")
    return whole


def _in_order(part: RankPart, counts: Sequence[int]) -> bool:
    """Whether dimensions of the mesh that divide after others do so after all later ones, and one for a dimension."""
    dims = part.sharded
    strided = [dim for dim, after in zip(dims, part.after, strict=True) if after]
    later = [
        prod(n for n, other in zip(counts[i + 1 :], dims[i + 1 :], strict=True) if other == dims[i])
        for i in range(len(dims))
    ]
    return len({*strided}) == len(strided) and all(n in (0, m) for n, m in zip(part.after, later, strict=True))


def _corner(part: RankPart, counts: Sequence[int]) -> tuple[int, ...]:
    """The first index of a part in each dimension: the mesh divides a dimension into equal parts, but for the last."""
    at, size = [0] * len(part.shape), list(part.shape)
    divided = zip(part.coordinate, counts, part.sharded, part.after, strict=True)
    for place, count, dim, _ in sorted(divided, key=lambda of_mesh: of_mesh[3] > 0):
        if dim is not None:
            step = -(-size[dim] // count)
            first = min(step * place, size[dim])
            at[dim], size[dim] = at[dim] + first, min(step, size[dim] - first)
    return tuple(at)
