"""The wait of calls in gRPC's own queue, measured with a clock and a queue that the test controls."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.server.backlog import BUSY_S, LOOK_AT_LEAST_S, LOOK_EVERY_S, WAIT_MAX_S, Backlog


@dataclass
class Queue:
    """gRPC's queue of calls that the server has not accepted yet."""

    now_s: float = 100.0
    waiting: int = 0
    open: int = 0
    queries: int = 0
    """The number of queries of gRPC's counters, each of which leaks memory."""
    query_s: float = 0.0
    """How long a query takes."""
    backlog: Backlog = field(init=False)

    def __post_init__(self) -> None:
        self.backlog = Backlog(self.in_progress, lambda: self.now_s)

    def in_progress(self) -> int:
        self.queries += 1
        self.now_s += self.query_s
        return self.waiting + self.open

    def accept(self, count: int, *, every_s: float) -> list[bool]:
        """Accept and end calls at this interval; return for each whether the wait was too long."""
        reported = []
        for _ in range(count):
            self.now_s += every_s
            self.waiting = max(self.waiting - 1, 0)
            self.open += 1
            reported.append(self.backlog.accept())
            self.open -= 1
            self.backlog.end()
        return reported


def test_an_empty_queue_is_not_long_however_slow_the_calls_are() -> None:
    queue = Queue()
    assert not any(queue.accept(100, every_s=0.05))
    assert not any(queue.accept(10, every_s=60.0))


def test_grpc_is_queried_once_a_second_while_the_queue_seems_empty_now_and_then() -> None:
    queue = Queue()
    for _ in range(1_000):
        queue.accept(10, every_s=0.004)
        queue.backlog.seems_empty()
    assert queue.queries <= 40


def test_queries_take_a_small_share_of_the_time_however_long_one_takes() -> None:
    for query_s in (0.001, 0.01, 0.1):
        queue = Queue(query_s=query_s)
        start_s = queue.now_s
        queue.accept(10_000, every_s=0.004)
        assert 10 <= queue.queries * query_s / 0.02 <= (queue.now_s - start_s) * 1.1 + query_s / 0.02


def test_a_long_wait_is_detected_without_another_query() -> None:
    queue = Queue(waiting=10_000, query_s=0.1)
    queue.accept(400, every_s=0.004)
    assert queue.queries == 1
    assert queue.accept(1, every_s=0.004) == [True]


def test_a_wait_is_detected_within_a_second_even_if_the_queue_only_seems_empty() -> None:
    queue = Queue(waiting=10_000)
    reported: list[bool] = []
    while not any(reported):
        reported += queue.accept(1, every_s=0.01)
        queue.backlog.seems_empty()
    assert len(reported) * 0.01 <= LOOK_AT_LEAST_S + WAIT_MAX_S + 0.1


def test_grpc_is_queried_rarely_while_the_queue_turns_out_to_be_empty_and_often_while_it_is_not() -> None:
    for waiting, every_s in ((0, BUSY_S), (10**6, LOOK_EVERY_S)):
        queue = Queue(waiting=waiting)
        queue.accept(5_000, every_s=0.002)
        assert 0.7 <= queue.queries * every_s / 10.0 <= 1.0


def test_a_queue_with_a_short_wait_is_not_long_and_rarely_queried_although_it_is_never_empty() -> None:
    queue = Queue(waiting=50)
    for _ in range(2_000):
        queue.waiting += 1
        assert queue.accept(1, every_s=0.005) == [False]
    assert 0.7 <= queue.queries * BUSY_S / 10.0 <= 1.0


def test_calls_are_refused_from_the_maximum_wait_until_the_queue_is_drained() -> None:
    queue = Queue(waiting=300)
    reported = queue.accept(300, every_s=0.01)
    first = reported.index(True)
    assert WAIT_MAX_S <= first * 0.01 <= WAIT_MAX_S + BUSY_S + 0.05
    assert all(reported[first:290])
    assert not any(queue.accept(20, every_s=0.01)[5:])


def test_the_wait_ends_when_grpc_drops_the_waiting_calls() -> None:
    queue = Queue(waiting=1000)
    assert any(queue.accept(100, every_s=0.01))
    queue.waiting = 0
    assert not any(queue.accept(20, every_s=0.01)[5:])


def test_dropped_calls_that_grpc_still_counts_are_detected_when_no_call_arrives() -> None:
    queue = Queue()
    dropped = 500

    def accept_slowly() -> bool:
        """Accept a call after a second without calls."""
        queue.now_s += 1.0
        queue.open += 1
        reported = queue.backlog.accept()
        queue.backlog.nothing_came_after(queue.backlog.accepted - 1)
        queue.backlog.nothing_came_after(queue.backlog.accepted)
        queue.open -= 1
        queue.backlog.end()
        return reported

    queue.waiting = dropped
    assert sum(accept_slowly() for _ in range(10)) == 0
    # Calls that really wait are detected in addition to the dropped ones.
    queue.waiting = dropped + 300
    assert any(queue.accept(100, every_s=0.01))


def test_an_outdated_report_of_an_empty_queue_is_ignored() -> None:
    queue = Queue(waiting=1000)
    queue.accept(5, every_s=0.01)
    queue.backlog.nothing_came_after(3)
    assert any(queue.accept(100, every_s=0.01))


def test_idle_time_after_a_burst_is_no_wait() -> None:
    queue = Queue(waiting=30)
    assert not any(queue.accept(31, every_s=0.001))
    queue.now_s += 3600.0
    assert not any(queue.accept(3, every_s=0.001))


def test_a_connection_with_few_calls_is_light_and_a_flooding_one_is_not() -> None:
    queue = Queue(waiting=100_000)
    queue.accept(400, every_s=0.002)
    light: list[bool] = []
    for number in range(400):
        assert queue.accept(1, every_s=0.001) == [True]
        if number % 40 == 0:
            light.append(queue.backlog.is_light("light"))
        else:
            flooding = queue.backlog.is_light("flood")
    assert all(light)
    assert not flooding


def test_a_single_connection_and_connections_with_equal_shares_are_not_light() -> None:
    for peers in (1, 7):
        queue = Queue(waiting=100_000)
        queue.accept(400, every_s=0.002)
        reported = []
        for number in range(700):
            queue.accept(1, every_s=0.001)
            reported.append(queue.backlog.is_light(f"peer {number % peers}"))
        assert sum(reported) < 70
