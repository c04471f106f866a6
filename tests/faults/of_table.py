"""Faults of the manifest: each changes its JSON."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.faults.sample import STAGES


def some_stage(table: Any, random: Random, key: str = "") -> Any:
    """What a stage does in the program; it has something under `key`."""
    return random.choice([stage for stage in program_of(table)["stages"] if not key or stage[key]])


def stage_with_weights(table: Any, random: Random) -> Any:
    """A stage that holds tensors."""
    pairs = zip(table["stages"], program_of(table)["stages"], strict=True)
    return random.choice([stage for stage, does in pairs if does["holds"]])


def program_of(table: Any) -> Any:
    """The last program of a manifest."""
    return table["programs"][-1]


def _end(table: Any, random: Random) -> Any:
    key = random.choice(["receives", "sends"])
    return random.choice(some_stage(table, random, key)[key])


def _drop(table: Any, random: Random, key: str) -> None:
    rows = some_stage(table, random, key)[key]
    rows.pop(random.randrange(len(rows)))


def _shuffle(table: Any, random: Random, key: str) -> None:
    random.shuffle(some_stage(table, random, key)[key])


def _repeat(table: Any, random: Random, key: str) -> None:
    rows = some_stage(table, random, key)[key]
    rows.insert(random.randrange(len(rows) + 1), random.choice(rows))


def _rewire(table: Any, random: Random) -> None:
    """Another source: an earlier stage, the stage itself, or a later one, so that stages wait in a circle."""
    random.choice(some_stage(table, random, "receives")["receives"])["source"] = random.choice(
        [None, *range(STAGES + 1)]
    )


def _retarget(table: Any, random: Random) -> None:
    random.choice(some_stage(table, random, "sends")["sends"])["stages"] = random.sample(range(STAGES + 1), 1)


def _place(table: Any, random: Random) -> None:
    send = random.choice([s for stage in program_of(table)["stages"] for s in stage["sends"]])
    send["outputs"] = random.choice([[], [0], [1], [2], [0, 1]])


def _dtype(table: Any, random: Random) -> None:
    tensors = [*program_of(table)["inputs"], *program_of(table)["outputs"], _end(table, random)["tensor"]]
    tensors.append(random.choice([*some_stage(table, random, "holds")["holds"].values()]))
    random.choice(tensors)["dtype"] = random.choice(["float16", "int32", "bfloat16", "float64"])


def _shape(table: Any, random: Random) -> None:
    tensor = random.choice([*program_of(table)["inputs"], *program_of(table)["outputs"], _end(table, random)["tensor"]])
    tensor["shape"] = random.choice([tensor["shape"][:-1], [*tensor["shape"], 1], ["batch", *tensor["shape"][1:]]])


def _bound(table: Any, random: Random) -> None:
    symbol = random.choice([*program_of(table)["symbols"].values()])
    symbol[random.choice(["min", "max"])] = random.choice([0, 1, 2, 3, 128, None])
    symbol["min"] = symbol["min"] or 0


def _guard(table: Any, random: Random) -> None:
    name = random.choice([*program_of(table)["symbols"]])
    guards = [[], [f"{name} % 2 == 0"], [f"{name} < 100"], [f"{name} > 1", f"{name} != 7"]]
    program_of(table)["guards"] = random.choice(guards)


def _state(table: Any, random: Random) -> None:
    some_stage(table, random)["state"] = random.choice(
        [[], ["total"], ["norm.weight"], ["total", "total"], ["nothing"]]
    )


def _device(table: Any, random: Random) -> None:
    random.choice(table["stages"])["device"] = random.choice(["cuda:0", "cuda:1", "cpu:1"])


def _move_node(table: Any, random: Random) -> None:
    a, b = random.sample(program_of(table)["stages"], 2)
    b["runs"].append(a["runs"].pop(random.randrange(len(a["runs"]))))


def _add_node(table: Any, random: Random) -> None:
    once = [node["makes"][0]["name"] for node in program_of(table)["nodes"] if not node["repeats"]]
    a, b = random.sample(program_of(table)["stages"], 2)
    b["runs"].insert(0, random.choice([run for run in a["runs"] if run["node"] in once]))


def _reverse_nodes(table: Any, random: Random) -> None:
    some_stage(table, random)["runs"].reverse()


def _lose_node(table: Any, random: Random) -> None:
    program_of(table)["nodes"].pop(random.randrange(len(program_of(table)["nodes"])))


def _rename(table: Any, random: Random) -> None:
    random.choice(program_of(table)["signature"]["parameters"])["name"] = random.choice(["x", "input_ids", "gain_2"])


def _optional(table: Any, random: Random) -> None:
    parameter = random.choice(program_of(table)["signature"]["parameters"])
    parameter[random.choice(["optional", "kind"])] = random.choice([True, "KEYWORD_ONLY"])


def _tree(table: Any, random: Random) -> None:
    other = [{"slot": 0}, {"slot": 1}, {"slot": 2}, {"list": [{"slot": 1}, {"slot": 0}]}, {"tuple": [{"slot": 0}]}]
    program_of(table)["signature"][random.choice(["returns", "arguments"])] = random.choice(other)


def _microbatches(table: Any, random: Random) -> None:
    found = program_of(table)["microbatching"]
    key, value = random.choice([("symbol", None), ("symbol", "seq"), ("inputs", [1, None]), ("outputs", [None, 0])])
    found[key] = value


def _trade_files(table: Any, random: Random) -> None:
    key = random.choice(["module", "cls", "weights"])
    a, b = random.sample(table["stages"] if key == "weights" else program_of(table)["stages"], 2)
    a[key], b[key] = b[key], a[key]


def _trade_weights(table: Any, random: Random) -> None:
    holds = some_stage(table, random, "holds")["holds"]
    a, b = random.choices([*holds], k=2)
    key = random.choice(["weight", "crc32", "shape"])
    holds[a][key], holds[b][key] = holds[b][key], holds[a][key]


def _lose_weight(table: Any, random: Random) -> None:
    holds = some_stage(table, random, "holds")["holds"]
    del holds[random.choice([*holds])]


def _nbytes(table: Any, random: Random) -> None:
    i = random.randrange(STAGES)
    row, key = random.choice([(table["stages"][i], "nbytes"), (table["plan"]["stages"][i], "weight_bytes")])
    row[key] += random.choice([-4, 4, 1024])


def _memory(table: Any, random: Random) -> None:
    key, value = random.choice([("memory_bytes", 16), ("activation_bytes", 8)])
    random.choice(table["plan"]["stages"])[key] = value


def _sizes(table: Any, random: Random) -> None:
    stage = some_stage(table, random)
    stage["sizes"] = random.choice([[], ["batch"], ["seq"], ["batch", "seq"]])


def _line(table: Any, random: Random) -> None:
    run = random.choice(some_stage(table, random)["runs"])
    run["line"] = random.choice([3, 1000])


def _sum_of_line(table: Any, random: Random) -> None:
    sums = some_stage(table, random, "lines")["lines"]
    line = random.choice([*sums])
    random.choice([sums.pop, lambda line: sums.update({line: random.choice([*sums.values()])})])(line)


def _digest(table: Any, random: Random) -> None:
    run = random.choice(some_stage(table, random)["runs"])
    run["digest"] = random.choice(program_of(table)["nodes"])["digest"]


def _forget_hash(table: Any, random: Random) -> None:
    key = random.choice(["module", "weights"])
    del table["files"][(some_stage(table, random) if key == "module" else random.choice(table["stages"]))[key]]


def _returns(table: Any, random: Random) -> None:
    returns, outputs = program_of(table)["returns"], program_of(table)["outputs"]
    random.choice([returns.reverse, returns.clear, outputs.reverse, outputs.pop])()


def _promise(table: Any, random: Random) -> None:
    """Something else that calls give, get or may be, which no stage has to do with."""
    program = program_of(table)
    changes: list[Callable[[], object]] = [
        program["inputs"].reverse,
        lambda: program["inputs"].append(program["inputs"][0]),
        lambda: program["condition"].update(grid=[[1, 2]]),
        lambda: program["layouts"].append([1, 0]),
        lambda: program["index_ranges"].update(ids=[0, 7]),
        lambda: program["counts"].append({"input": program["inputs"][0]["name"], "value": 3, "count": "2"}),
        lambda: program["row_products"].append(
            {"input": program["inputs"][0]["name"], "multiples": [1, 2, 2], "count": "4"}
        ),
        lambda: program["described"].append(
            {"input": program["inputs"][0]["name"], "value": 1, "mask": "", "rows": "grid", "divisors": [1, 2, 2]}
        ),
        lambda: program["padding"].update(symbol="batch"),
        lambda: program.update(name="other"),
        lambda: table["programs"].append(program),
        lambda: table["generation"].update(stop=[3]),
        table["settings"].clear,
    ]
    random.choice(changes)()


TABLE_FAULTS: dict[str, Callable[[Any, Random], object]] = {
    "a call is other than was promised": _promise,
    "a transfer is not received": lambda table, random: _drop(table, random, "receives"),
    "a transfer is not sent": lambda table, random: _drop(table, random, "sends"),
    "sends in another order": lambda table, random: _shuffle(table, random, "sends"),
    "receives in another order": lambda table, random: _shuffle(table, random, "receives"),
    "a tensor is sent twice": lambda table, random: _repeat(table, random, "sends"),
    "a tensor is received twice": lambda table, random: _repeat(table, random, "receives"),
    "another source, or a cycle": _rewire,
    "another target": _retarget,
    "an output at another place": _place,
    "another dtype": _dtype,
    "another shape": _shape,
    "a bound is loosened": _bound,
    "a guard is changed": _guard,
    "another list of states": _state,
    "another device": _device,
    "a node is dropped": lambda table, random: _drop(table, random, "runs"),
    "a node runs twice": lambda table, random: _repeat(table, random, "runs"),
    "a node runs in another stage": _move_node,
    "a node runs in two stages": _add_node,
    "nodes in another order": _reverse_nodes,
    "the model loses a node": _lose_node,
    "a parameter is renamed": _rename,
    "a parameter of another kind": _optional,
    "another tree": _tree,
    "other microbatches": _microbatches,
    "files of another stage": _trade_files,
    "weights are swapped": _trade_weights,
    "a weight is forgotten": _lose_weight,
    "other bytes are planned": _nbytes,
    "too little memory": _memory,
    "other sizes": _sizes,
    "a node on another line": _line,
    "a line of another sum": _sum_of_line,
    "a node with other arguments": _digest,
    "a hash is forgotten": _forget_hash,
    "other outputs": _returns,
}
