"""The command line: measure this host, and write a cluster file that `passes.compile --cluster` takes.

    python -m runtime.measure -o cluster.toml                            all GPUs, or else two halves of the CPU
    python -m runtime.measure -o cluster.toml --devices cpu,cpu,cpu --threads 2

Exit status: 0 done, 2 bad input (one message, nothing written), 1 a process was lost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from runtime.device.kinds import model_name
from runtime.device.placement import available, place_stages
from runtime.errors import DeviceError, DistributedError, InputError
from runtime.measure.device import Numbers, measure_device
from runtime.measure.flags import parser
from runtime.measure.links import LinkSpeed, measure_copies
from runtime.measure.shares import measure_shares
from runtime.measure.timing import ShowProgress
from runtime.output_files import replace_file, require_writable

Links = dict[tuple[int, int], LinkSpeed]

_ALIKE = 0.1  # relative difference that is taken for noise between devices of one model


def main(argv: Sequence[str] | None = None, prog: str = "python -m runtime.measure") -> int:
    options = parser(prog).parse_args(argv)
    out: Path = options.out
    try:
        require_writable(out)
        devices = _devices(options.devices)
        threads = options.threads or max(1, (os.cpu_count() or 1) // max(1, _shares(devices)))
        text = "\n".join(_file(*_measure(devices, threads, _say))) + "\n"
        replace_file(out, lambda path: path.write_text(text))
    except (DeviceError, InputError) as e:
        return _fail(str(e), 2)
    except DistributedError as e:
        return _fail(str(e), 1)
    _say("")
    print(text, end="")
    return 0


def _devices(names: str | None) -> list[torch.device]:
    """The named devices; by default all accelerators, or two shares of the CPU.  Raises DeviceError."""
    if names is None:
        return available()[1:] or [torch.device("cpu")] * 2
    wanted = [name.strip() for name in names.split(",")]
    found = list(place_stages(wanted, wanted))
    twice = next((d for d in found if d.type != "cpu" and found.count(d) > 1), None)
    if twice is not None:
        raise DeviceError(f"{twice} is named twice; only the CPU can be shared")
    return found


def _shares(devices: Sequence[torch.device]) -> int:
    return sum(device.type == "cpu" for device in devices)


def _measure(
    devices: Sequence[torch.device], threads: int, say: ShowProgress
) -> tuple[list[Numbers], Links, list[str]]:
    """The table of each device, the links, and comments for the file."""
    shares, tables, links = _shares(devices), dict[int, Numbers](), Links()
    cpus = [i for i, device in enumerate(devices) if device.type == "cpu"]
    if shares:
        numbers, link = measure_shares(shares, threads, say)
        tables |= dict.fromkeys(cpus, numbers)
        links |= {(a, b): link for a in cpus for b in cpus if a < b and link is not None}
    for i, device in enumerate(devices):
        if device.type != "cpu":
            tables[i] = measure_device(device, say)
    host, notes = torch.device("cpu"), list[str]()
    for a, device in enumerate(devices):
        for b in range(a):
            if not (a in cpus and b in cpus):
                links[b, a] = measure_copies(devices[b], device, say)
        if device.type != "cpu" and not cpus:
            link = measure_copies(host, device, say)
            notes.append(f"host and {device}: {link.bandwidth / 1e9:.1f} GB/s, {link.latency * 1e6:.1f} µs")
    named = [{"name": f"cpu:{cpus.index(i)}" if i in cpus else str(d)} | tables[i] for i, d in enumerate(devices)]
    return _evened(named, devices), links, notes


def _evened(tables: list[Numbers], devices: Sequence[torch.device]) -> list[Numbers]:
    """The same tables, with equal numbers for devices of one model that differ by noise alone: easier to plan for."""
    models = [model_name(device) for device in devices]
    for model in dict.fromkeys(models):
        alike = [table for table, its in zip(tables, models, strict=True) if its == model]
        means = {key: _mean([table[key] for table in alike]) for key in alike[0] if key != "name"}
        if all(_close(table[key], mean) for table in alike for key, mean in means.items()):
            for table in alike:
                table |= means
    return tables


def _mean(values: Sequence[float | dict[str, float]]) -> float | dict[str, float]:
    first = values[0]
    if isinstance(first, dict):
        return {key: sum(v[key] for v in values if isinstance(v, dict)) / len(values) for key in first}
    return sum(v for v in values if not isinstance(v, dict)) / len(values)


def _close(value: float | dict[str, float], mean: float | dict[str, float]) -> bool:
    if isinstance(value, dict) and isinstance(mean, dict):
        return all(_close(value[key], mean[key]) for key in mean)
    assert not isinstance(value, dict)
    assert not isinstance(mean, dict)
    return abs(value - mean) <= _ALIKE * mean + 1e-6  # seconds: a microsecond is noise


def _file(tables: Sequence[Numbers], links: Links, notes: Sequence[str]) -> Iterator[str]:
    """The lines of the TOML file that ir/machine/cluster.py reads."""
    yield f"# Measured by python -m runtime.measure on {date.today()}, with torch {torch.__version__}."
    yield from (f"# {note}" for note in notes)
    if links and all(link.is_close(next(iter(links.values()))) for link in links.values()):
        mean = LinkSpeed.mean(list(links.values()))
        yield f"link = {{ bandwidth = {mean.bandwidth:.4g}, latency = {mean.latency:.3g} }}"
        links = {}
    for table in tables:
        yield "\n[[device]]"
        yield from (f"{key} = {_value(value)}" for key, value in table.items())
    for (a, b), link in links.items():
        yield f"\n[[link-between]]\ndevices = [{_value(tables[a]['name'])}, {_value(tables[b]['name'])}]"
        yield f"bandwidth = {link.bandwidth:.4g}\nlatency = {link.latency:.3g}"


def _value(value: float | str | dict[str, float]) -> str:
    match value:
        case str():
            return f'"{value}"'
        case dict():
            return "{ " + ", ".join(f"{key} = {_value(number)}" for key, number in value.items()) + " }"
        case _:
            return str(value) if isinstance(value, int) else f"{value:.4g}"


def _say(text: str) -> None:
    """Show progress: on a terminal in one line that changes, elsewhere a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
