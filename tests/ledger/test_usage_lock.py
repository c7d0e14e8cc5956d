"""The lock that shows which processes use a ledger; each lock in these tests is that of another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from service.ledger import LedgerUnavailable
from service.ledger.usage_lock import UsageLock

TIMEOUT_S = 0.1
Acquire = Callable[[UsageLock, float], None]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[UsageLock]:
    """Return the lock of another process, which it does not hold yet."""
    with lock_on(tmp_path) as lock:
        yield lock


@contextmanager
def lock_on(directory: Path) -> Iterator[UsageLock]:
    lock = UsageLock(directory / "ledger.db")
    try:
        yield lock
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("acquire", "sentence"),
    [
        (UsageLock.acquire, "is being created, restored or opened by another process"),
        (UsageLock.acquire_alone, "is in use by another process: stop the gateway first"),
    ],
)
def test_lock_is_released_when_another_process_keeps_it_for_the_whole_timeout(
    tmp_path: Path, other: UsageLock, acquire: Acquire, sentence: str
) -> None:
    assert other.try_alone()
    with lock_on(tmp_path) as lock:
        assert not lock.is_alone
        began_s = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=f"^the ledger {tmp_path}/ledger.db {sentence}$"):
            acquire(lock, TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - began_s < 50 * TIMEOUT_S
        assert lock.descriptor == -1
        assert not lock.is_alone


@pytest.mark.parametrize("acquire", [UsageLock.acquire, UsageLock.acquire_alone])
def test_lock_is_acquired_when_the_other_process_ends_in_time(
    tmp_path: Path, other: UsageLock, acquire: Acquire
) -> None:
    assert other.try_alone()
    ends = Timer(TIMEOUT_S, other.release)
    with lock_on(tmp_path) as lock:
        ends.start()
        acquire(lock, 600 * TIMEOUT_S)
        ends.join()
        assert lock.is_alone


def test_lock_of_a_ledger_in_use_is_shared_but_not_exclusive(tmp_path: Path, other: UsageLock) -> None:
    assert other.try_alone()
    other.share()
    assert other.is_alone is False
    with lock_on(tmp_path) as lock:
        lock.acquire(0)
        assert not lock.is_alone
        with pytest.raises(LedgerUnavailable, match="is in use by another process"):
            lock.acquire_alone(0)
