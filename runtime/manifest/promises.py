"""Digests of what programs take and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from runtime.manifest.digests import digest_of
from runtime.manifest.manifest import CallSignature, Manifest, Microbatching, ProgramEntry, Symbol


def with_promises(manifest: Manifest) -> Manifest:
    """The manifest with the digest of what calls of each program take and return."""
    programs = (dataclasses.replace(p, promise=promise_of(manifest, p)) for p in manifest.programs)
    return dataclasses.replace(manifest, programs=tuple(programs))


def promise_of(manifest: Manifest, program: ProgramEntry) -> str:
    """A digest of all of a program but its nodes and stages, and of what the programs of an artifact share."""
    own = dataclasses.asdict(dataclasses.replace(program, nodes=(), stages=(), promise=""))
    for later in ("counts", "row_products", "described"):
        if not own[later]:
            del own[later]  # as in artifacts of versions that did not know them
    for count in own.get("counts", ()):
        if not count["images"]:
            del count["images"]
    shared: list[Any] = [dataclasses.asdict(x) for x in (manifest.generation, *manifest.operators)]
    for places in shared[0]["media"].values():
        if not places["grids"]:
            del places["grids"], places["merge"], places["indices"]
        for later in ("each", "divisors", "padded"):
            if not places[later]:
                del places[later]
    return digest_of([own, shared, [p.name for p in manifest.programs], manifest.settings, list(manifest.helpers)])


def terms_of(
    symbols: dict[str, Symbol], guards: Sequence[str], signature: CallSignature, microbatching: Microbatching
) -> str:
    """A digest of what a program asks of its callers and what it returns to them."""
    sizes = {name: dataclasses.asdict(symbol) for name, symbol in symbols.items()}
    return digest_of([sizes, list(guards), dataclasses.asdict(signature), dataclasses.asdict(microbatching)])
