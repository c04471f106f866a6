"""A checkpoint on disk: a mapping from names to tensors, each read on access."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.adapters.kept import adapter_names, keep_adapters
from ir.checkpoint.adapters.low_rank import Adapted, AdaptedExperts
from ir.checkpoint.adapters.retrained import Retrained
from ir.checkpoint.files import are_of_stages, read_checkpoint
from ir.checkpoint.mosaic import Mosaic
from ir.checkpoint.names import fit, own_tensors, renamed_for, same_copies, stored_names, unwrapped
from ir.checkpoint.quantized.dequantized import Dequantized
from ir.checkpoint.quantized.kept import keep_stored
from ir.checkpoint.quantized.quantization import Quantization, quantization_by_names, quantization_of
from ir.checkpoint.tensors import Held, Tensorlike
from ir.checkpoint.transformers import named_for
from ir.errors import SourceError
from ir.text.names import listed_names


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of files by name, each read into memory of its own on access."""

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, Tensorlike],
        notes: tuple[str, ...] = (),
        tables: Mapping[str, Mapping[str, Tensorlike]] = MappingProxyType({}),
        quantization: Quantization | None = None,
        adapters: tuple[Adapter, ...] = (),
    ) -> None:
        self.path = path
        self.tensors = tensors
        self.notes = notes  # what the user should know
        self.tables = tables  # by their key in the file: the dicts in it that hold tensors
        self.quantization = quantization  # of the files' weights; None where these are plain
        self.adapters = adapters  # that `for_model` merges, one after the other

    @classmethod
    def open(cls, path: Path, variant: str = "") -> Checkpoint:
        """Open a file of weights, or a folder with some, as `read_checkpoint` does.

        Headers alone are read.  Raises SourceError with the file, and the tensor, that is missing or damaged.
        """
        tables = read_checkpoint(path, variant)
        quantization = quantization_of(path) or quantization_by_names(tables.values())
        if quantization is not None and are_of_stages(tables):
            raise SourceError(
                f"{path} has weights as stages hold them, whose names are not those of {quantization.method}: export "
                "an artifact of --quantized dequantize"
            )
        return cls(path, _main(tables), tables=tables, quantization=quantization)

    def under(self, prefix: str) -> Checkpoint:
        """The tensors whose names begin with `prefix`, without it; a dict's key and a dot begin the names in it.

        Raises SourceError where there is none.
        """
        if not prefix:
            return self
        named = {f"{key}.{name}".lstrip("."): t for key, table in self.tables.items() for name, t in table.items()}
        named |= self.tensors
        bare = unwrapped((), named)
        kinds = (
            {n.removeprefix(prefix): t for n, t in table.items() if n.startswith(prefix) and n != prefix}
            for table in (named, bare)
        )
        if not (chosen := next(filter(None, kinds), None)):
            raise SourceError(f"{self} holds no name that begins with {prefix}: it has {listed_names([*named], 3)}")
        return Checkpoint(self.path, chosen, self.notes, {"": chosen}, self.quantization, self.adapters)

    def adapted_by(self, *adapters: Adapter) -> Checkpoint:
        """The same tensors, with adapters that are merged into the model's weights."""
        both = (*self.adapters, *adapters)
        return Checkpoint(self.path, self.tensors, self.notes, self.tables, self.quantization, both)

    def for_model(self, model: nn.Module) -> Checkpoint:
        """The same tensors under the model's own names, as transformers would load them if the model is one of its.

        Quantized weights are dequantized into the model's dtype.  Raises SourceError where tensors cannot be loaded
        into it.
        """
        whole = self if self.quantization is None else self._dequantized(self.quantization, model)
        named = whole._named_for(model, self.quantization, self.adapters)
        return Checkpoint(self.path, named.tensors, named.notes, named.tables, self.quantization)

    def held_by(self, model: nn.Module, as_stored: bool) -> Checkpoint:
        """The tensors of `for_model` with notes on what was quantized.

        `as_stored`: the model is changed to hold quantized weights as they are stored, where it can.
        """
        if self.quantization is None:
            return self
        stored = as_stored and not adapter_names(model)  # adapters are beside plain layers
        tensors = keep_stored(model, self.tensors) if stored else self.tensors
        notes = (*self.notes, *_quantized_notes(self.quantization, self.tensors, tensors))
        return Checkpoint(self.path, tensors, notes, self.tables)

    def _named_for(
        self, model: nn.Module, quantization: Quantization | None, adapters: Sequence[Adapter]
    ) -> Checkpoint:
        chosen, copies = self._table_for(stored_names(model))
        table, adapters = _adapted_as_stored(model, chosen, adapters)
        named = named_for(model, table, str(self))
        left = named.unexpected
        for adapter in adapters:
            adapter.require_taken(left)
        if quantization is not None and (scales := [name for name in left if name.endswith(_OF_INPUTS)]):
            raise SourceError(
                f"{self} has {listed_names(scales, 3)}, by which {quantization.method} scales what layers take or "
                "return, and which the model has no place for: save the model dequantized"
            )
        if added := [name for name in left if _OF_LORA.search(name)]:
            raise SourceError(
                f"{self} has {listed_names(added, 3)}, LoRA beside its weights, for which the model has no place: "
                "merge it into them and save that, or give a model file that makes the model with it"
            )
        notes = [f"{self} also holds {listed_names(left)}, which the model has no place for"] if left else []
        notes += copies
        return Checkpoint(self.path, named.tensors, (*self.notes, *notes), self.tables)._adapted(model, adapters)

    def _table_for(self, wanted: Collection[str]) -> tuple[Mapping[str, Tensorlike], Sequence[str]]:
        """The table that fits most of the wanted names, or those of several parts of the model, joined; with notes.

        Raises SourceError where several do, with other tensors.
        """
        tables = {key: unwrapped(wanted, table) for key, table in self.tables.items()}
        main = unwrapped(wanted, self.tensors)
        fits = {key: fit(wanted, table) for key, table in tables.items()}
        best = max(fits, key=fits.__getitem__, default="")
        if (joined := self._of_parts(wanted, max(fits.get(best, 0), fit(wanted, main)))) is not None:
            return joined
        if fits.get(best, 0) <= fit(wanted, main):
            best = next((key for key, table in self.tables.items() if table is self.tensors), best)
        rivals = [key for key, n in fits.items() if n and n == fits[best]]
        copies = self._notes_on_copies({frozenset(_fitting(wanted, tables[key])): key for key in rivals})
        return tables[best] if fits.get(best) else main, copies

    def _of_parts(self, wanted: Collection[str], least: int) -> tuple[Mapping[str, Tensorlike], Sequence[str]] | None:
        """The tables of several parts of the model, joined, if they fit more than `least` of the wanted names.

        Raises SourceError where several dicts have such parts, with other tensors.
        """
        joined = {key: unwrapped(wanted, table) for key, table in _joined(self.tables) if len(table) > least}
        fits = {key: n for key, table in joined.items() if (n := fit(wanted, table)) > least}
        best = sorted((key for key, n in fits.items() if n == max(fits.values())), key=len)
        copies = self._notes_on_copies({frozenset(_fitting(wanted, joined[key])): key for key in best})
        return (joined[best[0]], copies) if best else None

    def _notes_on_copies(self, copies: Mapping[frozenset[tuple[str, Tensorlike]], str]) -> Sequence[str]:
        """A note on dicts of a file that have the same weights for a model; none on one alone.

        `copies`: the key of each, by its tensors.  Raises SourceError where their values differ.
        """
        keys = [*copies.values()]
        tables = [dict(copy) for copy in copies]
        if all(same_copies(table, tables[0]) for table in tables[1:]):
            return [f"{self} has the same weights under {_prefixes(keys)}"] if keys[1:] else []
        named = next(filter(None, keys))
        raise SourceError(
            f"{self} has weights for the model under {_prefixes(keys)}: say --weights-prefix {named}., or so"
        )

    def _adapted(self, model: nn.Module, adapters: Sequence[Adapter]) -> Checkpoint:
        """The tensors of a model with adapters merged into them, or kept beside them."""
        tensors, notes = self.tensors, list(self.notes)
        if kept := [adapter for adapter in adapters if adapter.kept]:
            notes += filter(None, (adapter.lacking(model, tensors) for adapter in kept))
            tensors = keep_adapters(model, tensors, kept)
            notes.append(f"each row chooses an adapter, or none: {', '.join(adapter_names(model))}")
        for adapter in (adapter for adapter in adapters if not adapter.kept):
            merged = adapter.merged(model, tensors)
            before = {id(tensor) for tensor in tensors.values()}
            changed = len(adapter.done) + sum(id(tensor) not in before for tensor in merged.values())
            said = (f"{adapter} is merged into {changed} weights", adapter.shared(model, tensors))
            notes += filter(None, (*said, adapter.lacking(model, tensors)))
            tensors = merged
        return Checkpoint(self.path, tensors, tuple(notes), self.tables)

    def _dequantized(self, quantization: Quantization, model: nn.Module) -> Checkpoint:
        dtype = next((p.dtype for p in model.parameters() if holds_values(p.dtype)), torch.float32)
        layers = {f"{path}.weight": layer for path, layer in model.named_modules()}
        try:
            tables = {key: quantization.dequantized(table, dtype, layers) for key, table in self.tables.items()}
        except SourceError as e:
            raise SourceError(f"{self}: {e}") from e
        notes = (_ACTIVATIONS,) if quantization.of_activations(self.tensors) else ()
        return Checkpoint(self.path, _main(tables), notes, tables)

    def __getitem__(self, fqn: str) -> torch.Tensor:
        tensor = self.tensors[fqn]
        return tensor.read(tensor.dtype)

    def dtype(self, fqn: str) -> torch.dtype:
        """The dtype of a tensor in the file."""
        return self.tensors[fqn].dtype

    def __contains__(self, fqn: object) -> bool:
        return fqn in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __str__(self) -> str:
        return str(self.path)


_OF_INPUTS = (".scales", "_quant_scale", "_pre_scale", "smooth_scale", "smoothquant_scale")
"""Endings of names of tensors without which the weights beside them are other ones."""

_OF_LORA = re.compile(r"\blora_(A|B|down|up)\b")
"""Parts of names of tensors that change the weights beside them."""

_ACTIVATIONS = "activations are not quantized, which they are in the checkpoint's own library"


def _adapted_as_stored(
    model: nn.Module, table: Mapping[str, Tensorlike], adapters: Sequence[Adapter]
) -> tuple[Mapping[str, Tensorlike], Sequence[Adapter]]:
    """A checkpoint's tensors with what adapters have for its own names, and the adapters without that."""
    left = list[Adapter]()
    for adapter in adapters:
        rest, changed = (adapter, {}) if adapter.kept else adapter.merged_as_stored(own_tensors(model), table)
        table = {**table, **changed}
        left.append(rest)
    return table, left


def _quantized_notes(
    quantization: Quantization, plain: Mapping[str, Tensorlike], tensors: Mapping[str, Tensorlike]
) -> Iterator[str]:
    """Notes on the weights that are held as they are stored, and on those that are dequantized."""
    left = [name for name, tensor in tensors.items() if is_computed(tensor)]
    schemes = "; ".join(dict.fromkeys(str(tensor.scheme) for tensor in plain.values() for tensor in _sources(tensor)))
    if len(tensors) > len(plain):
        yield f"the weights stay as {quantization.method} stores them ({schemes}), and are dequantized at each use"
    if left:
        which = listed_names(left) if len(tensors) > len(plain) else "the weights"
        yield f"{which} are dequantized while stages are written, from {quantization.method} ({schemes})"


_Table = TypeVar("_Table", bound=Mapping[str, Tensorlike])


def _main(tables: Mapping[str, _Table]) -> _Table:
    """The table that a file's tensors are in, unless a model fits another one better."""
    return tables.get("state_dict") or tables[""]


def _joined(tables: Mapping[str, _Table]) -> Iterator[tuple[str, dict[str, Tensorlike]]]:
    """The tables of each dict that holds several of them, by its key: as one, with their keys in front of the names."""
    inside = defaultdict[str, dict[str, _Table]](dict)
    for key, table in tables.items():
        parts = key.split(".") if key else []
        for i in range(len(parts) + 1) if table else ():
            inside[".".join(parts[:i])][".".join(parts[i:])] = table
    for path, held in inside.items():
        if len(held) > 1:
            yield path, {f"{key}.{name}".lstrip("."): t for key, table in held.items() for name, t in table.items()}


def _fitting(wanted: Collection[str], table: Mapping[str, Tensorlike]) -> Iterator[tuple[str, Tensorlike]]:
    """The tensors of a table that have one of the wanted names, by these."""
    return ((new, table[old]) for old, new in renamed_for(wanted, table).items() if new in wanted)


def weight_source(weights: Mapping[str, torch.Tensor], fqns: Sequence[str]) -> Tensorlike:
    """The tensor of any of the names, unread: a checkpoint holds a tied weight under one of them."""
    fqn = next((fqn for fqn in fqns if fqn in weights), fqns[0])
    return weights.tensors[fqn] if isinstance(weights, Checkpoint) else Held(weights[fqn])


def is_computed(tensor: Tensorlike) -> bool:
    """Whether a tensor is dequantized, or joined from some that are."""
    return next(_sources(tensor), None) is not None


def _sources(tensor: Tensorlike) -> Iterator[Dequantized]:
    """The quantized weights that a tensor consists of."""
    match tensor:
        case Dequantized():
            yield tensor
        case Mosaic(tiles=tiles):
            for tile in tiles:
                yield from _sources(tile.source)
        case Adapted(base=base) | AdaptedExperts(base=base) | Retrained(base=base):
            yield from _sources(base)


def holds_values(dtype: torch.dtype) -> bool:
    """Whether elements of a dtype are values, not codes of a quantized weight."""
    return dtype.is_floating_point and dtype.itemsize >= 2


def _prefixes(keys: Sequence[str]) -> str:
    return " and ".join(f"`{key}.`" if key else "no prefix" for key in keys)
