"""The arguments of engines: one, or several on devices of their own."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from runtime.errors import InputError
from runtime.manifest.manifest import Manifest


def engine_arguments(options: argparse.Namespace) -> list[list[str]]:
    """The arguments of each engine's process.  Raises InputError or ManifestError."""
    manifest = Manifest.read(options.artifact)
    planned = [stage.device for stage in manifest.stages]
    devices = options.devices.split(",") if options.devices else []
    return [_of_one(options, own) for own in devices_of_each(devices, planned, options.replicas)]


def devices_of_each(devices: Sequence[str], planned: Sequence[str], replicas: int) -> list[list[str]]:
    """The devices of each replica: equal parts of those given, else the planned ones and those that follow them.

    An empty list stands for the planned ones.  Raises InputError where the parts would not be equal.
    """
    if replicas == 1:
        return [[*devices]]
    if len(devices) > 1:
        each, left = divmod(len(devices), replicas)
        if left:
            raise InputError(f"{len(devices)} devices are no equal parts for {replicas} replicas")
        return [[*devices[i * each : (i + 1) * each]] for i in range(replicas)]
    distinct = [*dict.fromkeys(devices or planned)]
    return [[_moved(device, i * len(distinct)) for device in distinct] for i in range(replicas)]


def _moved(device: str, places: int) -> str:
    """The accelerator so many places after another; there is one CPU."""
    kind, _, index = device.partition(":")
    if kind == "cpu" or not re.fullmatch(r"\d*", index):
        return "cpu"
    return f"{kind}:{int(index or 0) + places}"


def _of_one(options: argparse.Namespace, devices: Sequence[str]) -> list[str]:
    arguments = [str(options.artifact)]
    if devices:
        arguments += ["--devices", ",".join(devices)]
    if options.timeout:
        arguments += ["--timeout", str(options.timeout)]
    if options.processes is not None:
        arguments.append("--processes" if options.processes else "--no-processes")
    switches = {"--strict": options.strict, "--compile": options.compile, "--cuda-graphs": options.cuda_graphs}
    return [*arguments, *(flag for flag, given in switches.items() if given)]
