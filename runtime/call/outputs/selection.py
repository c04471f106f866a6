"""The outputs of a batch that its callers ask for: where they lie, and who gets which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from runtime.call.input_type import InputType
from runtime.call.outputs.output_parts import OutputPart, parse_parts
from runtime.engine.boxes import Boxes
from runtime.errors import InputError
from runtime.manifest.manifest import ProgramEntry


@dataclass(frozen=True)
class OutputSelection:
    """The parts of outputs that each caller of a batch asks for, in one program.

    Callers that share a batch have rows of their own, one behind the other, and each its own sizes.
    """

    program: ProgramEntry
    outputs: tuple[InputType, ...]  # all that the program has
    parts: tuple[OutputPart, ...]

    @classmethod
    def of(cls, program: ProgramEntry, outputs: tuple[InputType, ...], texts: Sequence[str]) -> OutputSelection:
        """The parts that these texts name.  Raises InputError for what is no part of an output."""
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise InputError("`outputs` must be a list of names of outputs, or of parts such as logits[:, -1]")
        parts = parse_parts(texts, {tensor.name: tensor.shape for tensor in program.outputs})
        return cls(program, outputs, parts)

    def boxes(self, callers: Sequence[Mapping[str, int]]) -> dict[int, Boxes]:
        """The boxes of each output, by its index, part by part and caller by caller; none of one that is taken whole.

        `callers`: the sizes of each.  Raises InputError for an index that is not there.
        """
        found: dict[int, Boxes] = {}
        for i, output in enumerate(self.outputs):
            boxes = tuple(box for part in self._of(output) for box in self._of_callers(i, part, callers))
            if boxes != (tuple((0, size, 1) for size in output.shape(callers[0])),) or len(callers) > 1:
                found[i] = boxes
        return found

    def results(
        self, made: Sequence[torch.Tensor], callers: Sequence[Mapping[str, int]]
    ) -> list[dict[str, torch.Tensor]]:
        """The parts of each caller, by the texts that it asked with, from the tensors that hold the boxes."""
        found: dict[tuple[str, int], torch.Tensor] = {}
        for output, tensor in zip(self.outputs, made, strict=True):
            asked = [(part, number) for part in self._of(output) for number in range(len(callers))]
            shapes = [part.shape(part.box(output.shape(callers[number]))) for part, number in asked]
            pieces = tensor.split([*map(prod, shapes)]) if len(asked) > 1 else [tensor]
            for (part, number), shape, piece in zip(asked, shapes, pieces, strict=False):
                found[part.text, number] = piece.reshape(shape)
        return [{part.text: found[part.text, number] for part in self.parts} for number in range(len(callers))]

    def joined(self, results: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The parts of a batch, from those of its microbatches."""
        if len(results) == 1:
            return dict(results[0])
        dims = ((part, self._split_dim(part)) for part in self.parts)
        columns = ((part.text, dim, [result[part.text] for result in results]) for part, dim in dims)
        return {text: column[0] if dim is None else torch.cat(column, dim) for text, dim, column in columns}

    def require_splittable(self) -> None:
        """Raises InputError for a part that microbatches cannot give: of some rows alone."""
        for part in self.parts:
            self._split_dim(part)

    def _of(self, output: InputType) -> list[OutputPart]:
        return [part for part in self.parts if part.output == output.name]

    def _of_callers(self, output: int, part: OutputPart, callers: Sequence[Mapping[str, int]]) -> Boxes:
        symbol, dim = self._rows(output)
        boxes, row = [], 0
        for sizes in callers:
            box = [*part.box(self.outputs[output].shape(sizes))]
            if dim is not None:
                start, stop, step = box[dim]
                box[dim] = start + row, stop + row, step
                row += sizes.get(symbol, 0)  # of an artifact made by hand, whose rows may be fixed
            boxes.append(tuple(box))
        return tuple(boxes)

    def _rows(self, output: int) -> tuple[str, int | None]:
        """The symbol of the rows, and the dimension of an output that they are; None if they are none of it."""
        split = self.program.microbatching
        return ("", None) if split.symbol is None else (split.symbol, split.outputs[output])

    def _split_dim(self, part: OutputPart) -> int | None:
        """The dimension of a part along which microbatches are joined; None where all give the same."""
        [output] = (i for i, output in enumerate(self.outputs) if output.name == part.output)
        symbol, rows = self._rows(output)
        if rows is None:
            return None
        if (dim := part.dimension(rows)) is None:
            raise InputError(f"output `{part.text}`: microbatches are split along `{symbol}`, so it must be whole (:)")
        return dim
