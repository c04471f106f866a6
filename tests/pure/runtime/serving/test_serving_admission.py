"""Requests that wait and run, and what becomes of them when a batch or an engine fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from runtime.serving.admission import Admission, Expired, Limits, NotServing, Overloaded, RequestFailed
from runtime.serving.arrays import Array
from tests.support.patience import PATIENCE


def row(value: int, rows: int = 1) -> dict[str, Array]:
    return {"x": Array("uint8", (rows, 1), bytes([value] * rows))}


class Engine:
    """Keeps the batches that it is handed, until the test answers them."""

    def __init__(self, stages: int = 1, **limits: Any) -> None:
        self.batches: dict[int, bytes] = {}
        self.where: list[int] = []  # the engines of all batches
        self.admission = Admission(self.take, Limits(**limits))
        self.wanted: Any = None  # of the last batch
        if stages:
            self.admission.opened(stages)

    def take(self, engine: int, number: int, arrays: Any, wanted: Any) -> None:
        self.where.append(engine)
        self.wanted = wanted
        self.batches[number] = bytes(arrays["x"].data)

    def answer(self, number: int) -> None:
        data = self.batches.pop(number)
        self.admission.done(number, {"y": Array("uint8", (len(data), 1), data)})

    def fail(self, number: int) -> None:
        del self.batches[number]
        self.admission.failed(number, "it raised", fault=False)

    def die(self) -> None:
        self.batches.clear()
        self.admission.lost()

    async def ask(self, *values: int, key: Any = "same") -> list[asyncio.Task[Any]]:
        tasks = [asyncio.ensure_future(self.admission.answer(row(value), key)) for value in values]
        await asyncio.sleep(0)
        return tasks


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE))


def values(tasks: list[asyncio.Task[Any]]) -> list[bytes]:
    return [bytes(task.result()["y"].data) for task in tasks]


async def settled(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


def test_what_waits_while_the_slots_are_taken_runs_as_one_batch() -> None:
    async def test() -> None:
        engine = Engine(stages=1, rows=3)
        tasks = await engine.ask(1, 2, 3, 4, 5, 6, 7)
        assert [*engine.batches.values()] == [b"\1", b"\2", b"\3"]
        engine.answer(1)
        assert engine.batches[4] == b"\4\5\6"
        for number in (2, 3, 4, 5):
            engine.answer(number)
        await settled(tasks)
        assert values(tasks) == [bytes([n]) for n in range(1, 8)]

    run(test())


@pytest.mark.parametrize("keys", [(None, None), ("one", "other")])
def test_requests_of_other_shapes_run_by_themselves(keys: tuple[Any, Any]) -> None:
    async def test() -> None:
        engine = Engine()
        await engine.ask(1, 2, 3)
        first, second = await engine.ask(4, key=keys[0]), await engine.ask(5, key=keys[1])
        for number in range(1, 6):
            engine.answer(number)
        await settled(first + second)

    run(test())


def test_requests_of_a_batch_get_the_outputs_that_they_ask_for() -> None:
    async def test() -> None:
        engine = Engine()
        running = await engine.ask(1, 2, 3)
        assert engine.wanted == {}
        answers = [engine.admission.answer(row(value), "y", outputs=("y[0]",)) for value in (4, 5)]
        tasks = [asyncio.ensure_future(answer) for answer in answers]
        await asyncio.sleep(0)
        engine.answer(1)
        assert (engine.wanted["outputs"], engine.batches[4]) == (("y[0]",), b"\4\5")
        own = [Array("uint8", (), bytes([value])) for value in (4, 5)]
        engine.admission.done(4, {f"{i} y[0]": array for i, array in enumerate(own)})
        for number in (2, 3):
            engine.answer(number)
        await settled(running + tasks)
        assert [task.result() for task in tasks] == [{"y[0]": array} for array in own]

    run(test())


def test_of_a_batch_that_fails_only_the_guilty_request_does() -> None:
    async def test() -> None:
        engine = Engine()
        running = await engine.ask(1, 2, 3)
        tasks = await engine.ask(4, 5, 6)
        engine.answer(1)
        engine.fail(4)  # of the three
        for number in (2, 3):
            engine.answer(number)
        assert [*engine.batches.values()] == [b"\4", b"\5", b"\6"]
        engine.fail(6)
        engine.answer(5)
        engine.answer(7)
        await settled(running + tasks)
        with pytest.raises(RequestFailed, match="it raised"):
            tasks[1].result()
        assert values([tasks[0], tasks[2]]) == [b"\4", b"\6"]

    run(test())


def test_what_ran_when_an_engine_died_runs_again_with_nothing_beside_it() -> None:
    async def test() -> None:
        engine = Engine()
        tasks = await engine.ask(1, 2, 3, 4)
        engine.die()
        assert not engine.batches
        engine.admission.opened(1)
        for value in (1, 2, 3, 4):
            [(number, batch)] = engine.batches.items()
            assert batch == bytes([value])
            engine.answer(number)
        await settled(tasks)
        assert values(tasks) == [b"\1", b"\2", b"\3", b"\4"]

    run(test())


def test_a_request_that_ends_its_engine_twice_fails_and_others_do_not() -> None:
    async def test() -> None:
        engine = Engine()
        tasks = await engine.ask(1, 2)
        engine.die()  # of whichever
        for _ in range(2):
            engine.admission.opened(1)
            assert [*engine.batches.values()] == [b"\1"]
            engine.die()
        engine.admission.opened(1)
        [number] = engine.batches
        engine.answer(number)
        await settled(tasks)
        with pytest.raises(RequestFailed, match="ended"):
            tasks[0].result()
        assert values(tasks[1:]) == [b"\2"]

    run(test())


def test_requests_are_spread_over_engines_and_go_to_the_one_that_is_left() -> None:
    async def test() -> None:
        engine = Engine()
        engine.admission.opened(1, engine=1)
        tasks = await engine.ask(1, 2, 3, 4)
        assert engine.where == [0, 1, 0, 1]
        engine.admission.lost(1)  # with the second and the fourth
        engine.answer(1)
        engine.answer(3)  # now nothing runs beside what the lost engine had
        assert engine.where[4:] == [0]
        engine.answer(5)
        engine.answer(6)
        await settled(tasks)
        assert values(tasks) == [b"\1", b"\2", b"\3", b"\4"]
        engine.admission.done(2, {})  # what a lost engine still says is dropped

    run(test())


def test_more_than_may_wait_are_told_when_to_come_again() -> None:
    async def test() -> None:
        engine = Engine(stages=0, waiting=2)
        await engine.ask(1, 2)
        with pytest.raises(Overloaded, match="2 requests wait already") as refused:
            await engine.admission.answer(row(3), None)
        assert refused.value.retry_after >= 1

    run(test())


def test_a_request_whose_time_is_over_waits_no_more() -> None:
    async def test() -> None:
        engine = Engine(stages=0)
        with pytest.raises(Expired, match=r"there was no answer within 0\.01 s"):
            await engine.admission.answer(row(1), None, seconds=0.01)
        assert engine.admission.waiting == 0

    run(test())


def test_a_request_whose_client_leaves_takes_no_slot() -> None:
    async def test() -> None:
        engine = Engine(stages=0)
        left, stays = await engine.ask(1), await engine.ask(2)
        left[0].cancel()
        await settled(left)
        engine.admission.opened(1)
        assert [*engine.batches.values()] == [b"\2"]
        engine.answer(1)
        await settled(stays)

    run(test())


def test_nobody_waits_for_a_server_that_ends() -> None:
    async def test() -> None:
        engine = Engine()
        tasks = await engine.ask(1, 2, 3, 4)
        engine.admission.close("the server ends")
        await settled(tasks)
        for task in tasks:
            with pytest.raises(NotServing, match="the server ends"):
                task.result()
        with pytest.raises(NotServing):
            await engine.admission.answer(row(5), None)

    run(test())
