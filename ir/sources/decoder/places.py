"""The positions of a prompt with media: those that the model's own `generate` gives it, as a rule for other prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ir.decoding import MediaPlaces
from ir.errors import SourceError, in_one_line

GRIDS = "image_grid_thw"
"""The input that describes images of a prompt by frames, rows and columns of patches."""


def positions_of_prompt(model: Any, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """The positions that `generate` of a transformers model gives the tokens of a prompt `[1, seq]` with media.

    `int64[rows, 1, seq]`, or `int64[1, seq]`; None where they are indices.  Raises SourceError where its code fails.
    """
    prepare = getattr(model, "_prepare_position_ids_for_generation", None)
    if prepare is None:
        return None
    try:
        with unchanged(model), torch.no_grad():
            found = prepare(ids, {"attention_mask": torch.ones_like(ids), **inputs})
    except Exception as e:  # of the model's own code
        raise SourceError(f"positions of its prompts are not known ({in_one_line(e)})") from e
    return None if bool((found == torch.arange(ids.shape[1])).all()) else found.long()


def places_of(token: int, ids: Tensor, positions: Tensor | None) -> MediaPlaces:
    """The places of media in a prompt `[1, seq]` of these positions, see `positions_of_prompt`.

    Raises SourceError where other ids with as many places before them do not lie as far from their indices.
    """
    places = ids[0] == token
    if positions is None:
        return MediaPlaces(token, int(places.sum()))
    moved = positions.flatten(0, -2) - torch.arange(ids.shape[1])  # [rows, seq]
    behind: dict[int, list[int]] = {}
    for count, row in zip(places.cumsum(0)[~places].tolist(), moved[:, ~places].T.tolist(), strict=True):
        if behind.setdefault(count, row) != row:
            raise SourceError("its positions do not follow from the number of places of media before them")
    rows = torch.cat([moved[:, places], torch.tensor(list(behind.values())).T], 1)
    return MediaPlaces(token, int(places.sum()), tuple(map(tuple, rows.tolist())), tuple(behind))


def prompt_of_grids(token: int, merge: int) -> tuple[Tensor, Tensor]:
    """A prompt `[1, seq]` with three images, some broad and some tall, and their grids: frames, rows and columns."""
    sides = torch.tensor([[1, 2, 3], [1, 4, 1], [1, 1, 2]])
    other = 1 if token == 0 else 0
    rows = [torch.cat([torch.full((i + 1,), other), torch.full((int(n),), token)]) for i, n in enumerate(sides.prod(1))]
    return torch.cat([*rows, torch.tensor([other, other])])[None], sides * torch.tensor([1, merge, merge])


def follows_from_grids(places: MediaPlaces, ids: Tensor, grid: Tensor, positions: Tensor) -> bool:
    """Whether the positions of a prompt `[1, seq]` are what `MediaPlaces` says of grids."""
    made = [torch.arange(ids.shape[1])] * places.indices
    image, done, columns = 0, 0, list[Tensor]()
    for is_place, run in groupby((ids[0] == places.token).tolist()):
        length = len(list(run))
        sides = [1, 1, length] if not is_place else (grid[image] // torch.tensor([1, *[places.merge] * 2])).tolist()
        indices = torch.cartesian_prod(*map(torch.arange, sides)).view(-1, 3).T
        columns.append((indices if is_place else indices[2:].expand(3, -1)) + done)
        done += max(sides[1:])
        image += is_place
    found = torch.stack([*made, *torch.cat(columns, 1)])
    return positions.dim() == 3 and torch.equal(positions[:, 0], found)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Inside the context, what the model's code sets on its modules lasts until the end."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, held in before:
            vars(module).clear()
            vars(module).update(held)
