"""A first run of a stage on zeros: its kernels are then loaded, or compiled, when the first batch comes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from runtime.call.input_type import InputType
from runtime.call.layout import Layout
from runtime.device.settings import KEEPS_MODULES
from runtime.device.streams import within
from runtime.manifest.manifest import Manifest, ProgramEntry
from runtime.stage.speed import Speed
from runtime.stage.stage import LoadedStage


def rehearse(stages: Sequence[LoadedStage], manifest: Manifest, speed: Speed, before_transfers: bool = False) -> None:
    """Run each program of the stages once, for the sizes that it was captured with.

    State and random numbers are as before.  Only what has something to prepare runs, on an accelerator or compiled, and
    no code of the user's, which could do more than compute.  A stage that fails is left to fail for a batch.
    `before_transfers`: whether to wait for kernels that are compiled meanwhile.  To load one waits for all kernels that
    run, and a transfer from another host, which runs until its peer joins, may in turn wait for what the stage sends.
    """
    if KEEPS_MODULES in manifest.settings or manifest.operators:
        return
    for stage in stages:
        if stage.device.type == "cpu" and not speed.compile:
            continue
        devices = [] if stage.device.type == "cpu" else [stage.device]
        drawn = torch.random.fork_rng(devices, device_type=stage.device.type)
        with torch.no_grad(), within(stage.stream), drawn:
            for number, program in enumerate(manifest.programs):
                sizes = {name: symbol.example for name, symbol in program.symbols.items()}
                with suppress(Exception):
                    stage(_zeros(stage, program), sizes, number)
            stage.reset()
        if before_transfers:
            stage.kernels.finish()


def _zeros(stage: LoadedStage, program: ProgramEntry) -> list[torch.Tensor]:
    """The tensors of a batch for a stage: zeros, or the least that an index may be."""
    layouts = {t.name: Layout(order) for t, order in zip(program.inputs, program.layouts, strict=False)}
    sizes = {name: symbol.example for name, symbol in program.symbols.items()}
    made: list[torch.Tensor] = []
    for receive in program.stages[stage.index].receives:
        name, is_input = receive.tensor.name, receive.source is None
        values = program.index_ranges.get(name) if is_input else None
        tensor = InputType.parse(receive.tensor, program.symbols, values).least(sizes, stage.device)
        made.append(layouts[name].bring(tensor) if is_input and name in layouts else tensor)
    return made
