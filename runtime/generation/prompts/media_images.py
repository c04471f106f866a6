"""Images of any grids or number before a text: the places of each in a prompt, and the positions of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import prod

import torch
from torch import Tensor

from runtime.call.counts import real_images
from runtime.errors import InputError
from runtime.manifest.manifest import MediaPlaces


def grid_positions(places: MediaPlaces, ids: Sequence[int], grid: Tensor) -> Tensor:
    """`int64[rows, 1, seq]`: the positions of the ids of a prompt with images of these grids, as `MediaPlaces` says.

    Raises InputError where the ids have other places than the images take.
    """
    images, made, done = iter(_sides(places, grid)), list[Tensor](), 0
    for is_image, run in groupby(ids, lambda token: token == places.token):
        length = len(list(run))
        if not is_image:
            made.append((torch.arange(length) + done).expand(3, -1))
            done += length
            continue
        sides = next(images, (0, 0, 0))
        if prod(sides) != length:
            taken = f"an image in their places takes {prod(sides)}"
            raise InputError(f"a prompt has {length} tokens {places.token} in a row, and {taken}")
        made.append(torch.cartesian_prod(*map(torch.arange, sides)).view(-1, 3).T + done)
        done += max(sides[1:])
    if next(images, None) is not None:
        raise InputError(f"a prompt has tokens {places.token} for fewer images than `{places.grids}` describes")
    indices = torch.arange(len(ids)).expand(places.indices, -1)
    return torch.cat([indices, *([torch.cat(made, 1)] if made else [])])[:, None]


def _sides(places: MediaPlaces, grid: Tensor) -> list[tuple[int, int, int]]:
    """Frames, rows and columns of places of each image.  Raises InputError for what is no grid."""
    if grid.dim() != 2 or grid.shape[1] != 3:
        raise InputError(f"`{places.grids}` is {list(grid.shape)}; expected [images, 3]")
    found = []
    for frames, rows, columns in grid.tolist():
        if min(frames, rows, columns) < 1 or rows % places.merge or columns % places.merge:
            multiples = f"rows and columns that are multiples of {places.merge}"
            raise InputError(f"`{places.grids}` holds {[frames, rows, columns]}; expected {multiples}")
        found.append((frames, rows // places.merge, columns // places.merge))
    return found


def parts_by_images(
    places: MediaPlaces, given: Mapping[str, Tensor], patches: Sequence[str], prompts: Sequence[Sequence[int]]
) -> Iterator[dict[str, Tensor]]:
    """The grids of each prompt, and its rows of the inputs `patches`, which have one for each patch.

    The last prompt has all that are left; one without places has nothing.  Raises InputError for grids of other
    patches than there are.
    """
    grid, image, patch = given[places.grids], 0, 0
    sides = _sides(places, grid)
    total = int(grid.prod(1).sum())
    for name in patches:
        if len(given[name]) != total:
            raise InputError(f"`{places.grids}` describes {total} patches, and `{name}` has {len(given[name])}")
    for number, ids in enumerate(prompts, 1):
        left, first, start = ids.count(places.token), image, patch
        while image < len(sides) and (left > 0 or number == len(prompts)):
            left, patch = left - prod(sides[image]), patch + int(grid[image].prod())
            image += 1
        nothing = first == image and places.token not in ids
        rows = {places.grids: grid[first:image], **{name: given[name][start:patch] for name in patches}}
        yield {} if nothing else rows


def parts_by_sizes(
    places: MediaPlaces, given: Mapping[str, Tensor], images: Sequence[str], prompts: Sequence[Sequence[int]]
) -> Iterator[dict[str, Tensor]]:
    """The sizes of the images of each prompt, and its rows of the inputs `images`; nothing of one without places.

    The last prompt has all that are left.  Raises InputError for images of other sizes than there are places for.
    """
    sizes, image = given[places.grids], 0
    counts = [_places_of(places, row) for row in sizes.tolist()]
    for name in images:
        shape, most = list(given[name].shape), sizes.amax(0).tolist()
        if shape[0] != len(sizes) or shape[2] < most[0] or shape[3] < most[1]:
            raise InputError(f"`{places.grids}` describes {sizes.tolist()}, and `{name}` is {shape}")
    for number, ids in enumerate(prompts, 1):
        taken, first, wanted = 0, image, ids.count(places.token)
        while image < len(counts) and (taken < wanted or number == len(prompts)):
            taken, image = taken + counts[image], image + 1
        if taken != wanted:
            raise InputError(f"a prompt has {wanted} tokens {places.token}, and its images take {taken}")
        if first == image:
            yield {}
            continue
        height, width = sizes[first:image].amax(0).tolist()
        pixels = {name: given[name][first:image, :, :height, :width] for name in images}
        yield {places.grids: sizes[first:image], **pixels}


def _places_of(places: MediaPlaces, size: Sequence[int]) -> int:
    """The places of an image of so many rows and columns of pixels.  Raises InputError for less than one."""
    if len(size) != len(places.divisors) or any(n < of for n, of in zip(size, places.divisors, strict=True)):
        raise InputError(f"`{places.grids}` holds {list(size)}; expected {list(places.divisors)} or more")
    return prod(n // of for n, of in zip(size, places.divisors, strict=True))


def parts_by_padding(
    places: MediaPlaces, given: Mapping[str, Tensor], images: Sequence[str], prompts: Sequence[Sequence[int]]
) -> Iterator[dict[str, Tensor]]:
    """Of each prompt its images in the inputs `images` `[texts, images, …]`, but for those that are all zeros.

    Nothing of one without images.  Raises InputError for other images than there are places of.
    """
    for name in images:
        wanted, shape = given[places.padded].shape[:2], given[name].shape[:2]
        if shape != wanted or len(prompts) != shape[0]:
            raise InputError(f"`{name}` is of {list(shape)} texts and images; expected {[len(prompts), wanted[1]]}")
    for row, (ids, real) in enumerate(zip(prompts, real_images(given[places.padded]), strict=True)):
        count, taken = ids.count(places.token), int(real.sum()) * places.each
        if count != taken:
            raise InputError(
                f"a prompt has {count} tokens {places.token}, and its images that are not zeros take {taken}"
            )
        yield {name: given[name][row : row + 1, real] for name in images} if count else {}


def parts_by_number(
    places: MediaPlaces, given: Mapping[str, Tensor], images: Sequence[str], prompts: Sequence[Sequence[int]]
) -> Iterator[dict[str, Tensor]]:
    """Of each prompt its rows of the inputs `images`, which have one for each image; nothing of one without places.

    Raises InputError for other images than there are places of.
    """
    counts, first = [ids.count(places.token) for ids in prompts], 0
    for count in counts:
        if count % places.each:
            raise InputError(f"a prompt has {count} tokens {places.token}, of which each image takes {places.each}")
    for name in images:
        if len(given[name]) * places.each != sum(counts):
            there = sum(counts) // places.each
            raise InputError(f"the prompts have places of {there} images, and `{name}` has {len(given[name])}")
    for count in counts:
        last = first + count // places.each
        yield {name: given[name][first:last] for name in images} if count else {}
        first = last
