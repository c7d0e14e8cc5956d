"""The queue of each linkage: one request at a time, the oldest biz_time first."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

from service.delivery.linkage_queue import LinkageQueue


class Line:
    """Tasks that queue for a linkage and note when they are first."""

    def __init__(self) -> None:
        self.turns = LinkageQueue()
        self.order: list[str] = []
        self.inside: Counter[str] = Counter()

    async def pass_(
        self, name: str, linkage: str | None, biz_time_ms: int | None, hold_s: float = 1.0
    ) -> None:
        if not self.turns.take(linkage):
            await self.turns.wait(linkage, biz_time_ms or 0)
        try:
            self.order.append(name)
            if linkage is not None:
                self.inside[linkage] += 1
                assert self.inside[linkage] == 1
            await asyncio.sleep(hold_s)
        finally:
            if linkage is not None:
                self.inside[linkage] -= 1
            self.turns.leave(linkage)

    def start(self, name: str, linkage: str | None, biz_time_ms: int | None) -> asyncio.Task[None]:
        return asyncio.create_task(self.pass_(name, linkage, biz_time_ms))


async def test_queue_is_in_order_of_biz_time_and_then_of_arrival() -> None:
    line = Line()
    tasks = [
        line.start(name, "a", time)
        for name, time in (("first", 9), ("c", 3), ("a", 1), ("b", 2), ("a2", 1), ("none", None))
    ]
    await asyncio.gather(*tasks)
    assert line.order == ["first", "none", "a", "a2", "b", "c"]
    assert not line.turns._waiting


async def test_another_linkage_and_no_linkage_do_not_wait() -> None:
    line = Line()
    tasks = [
        line.start(*row) for row in (("a", "a", 1), ("b", "b", 1), ("n1", None, 1), ("n2", None, None))
    ]
    await asyncio.sleep(0.5)
    assert line.order == ["a", "b", "n1", "n2"]
    assert line.turns.is_taken("a")
    assert not line.turns.is_taken("c")
    await asyncio.gather(*tasks)
    assert not line.turns.is_taken("a")


async def test_cancelled_task_does_not_block_the_queue() -> None:
    line = Line()
    tasks = [line.start(str(number), "a", number) for number in range(5)]
    await asyncio.sleep(0.5)
    for number in (1, 3):
        tasks[number].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert line.order == ["0", "2", "4"]
    assert not line.turns._waiting


async def test_task_cancelled_when_it_becomes_first_lets_the_next_one_start() -> None:
    line = Line()
    tasks = [line.start(str(number), "a", number) for number in range(3)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    for _ in range(10):
        await asyncio.sleep(0)
        if tasks[0].done():
            break
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert line.order == ["0", "2"]
    assert not line.turns._waiting


DICE: Final = random.Random(11)


async def test_thousand_tasks_leave_no_queue() -> None:
    line, tasks = Line(), []
    for number in range(1000):
        tasks.append(line.start(str(number), DICE.choice("abcde"), DICE.randrange(50)))
        if DICE.random() < 0.3:
            await asyncio.sleep(DICE.random() * 3)
        if DICE.random() < 0.4:
            DICE.choice(tasks).cancel()
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not line.turns._waiting


async def test_request_gives_way_to_an_older_one_and_is_next_after_it() -> None:
    turns, order = LinkageQueue(), []

    async def pass_(name: str, biz_time_ms: int) -> None:
        if not turns.take("a"):
            await turns.wait("a", biz_time_ms)
        order.append(f"{name} has its turn")
        await asyncio.sleep(1)
        if turns.has_older("a", biz_time_ms):
            await turns.wait("a", biz_time_ms, gives_way=True)
        order.append(f"{name} ends")
        turns.leave("a")

    await asyncio.gather(*(pass_(name, time) for name, time in (("b", 5), ("c", 7), ("a", 3))))
    turn, end = "{} has its turn", "{} ends"
    assert order == [
        turn.format("b"),
        turn.format("a"),
        end.format("a"),
        end.format("b"),
        turn.format("c"),
        end.format("c"),
    ]
    assert not turns._waiting


async def test_request_cancelled_after_it_gave_way_keeps_nobody_waiting() -> None:
    turns = LinkageQueue()
    assert turns.take("a")
    older = asyncio.create_task(turns.wait("a", 1))
    await asyncio.sleep(0)
    younger = asyncio.create_task(turns.wait("a", 2, gives_way=True))
    await asyncio.sleep(0)
    younger.cancel()
    await asyncio.wait({younger})
    await older
    turns.leave("a")
    assert not turns._waiting
