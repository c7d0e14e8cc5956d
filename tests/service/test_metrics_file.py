"""The files in which workers share their metrics: a full or cleaned disk never stops a worker."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry.metrics import Metrics
from service.telemetry.metrics_file import BYTES, MetricsFile, keep_metrics_shared, locked, retire
from tests.service.fakes import LogStream

WARNING = "metrics not shared with other workers"


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a file in the directory of the metrics, and forget the files after the test."""
    (tmp_path / "metrics").mkdir(mode=0o700)
    yield tmp_path / "metrics" / "counter_1.db"
    for file in list(MetricsFile.all):
        file.close()
    MetricsFile.is_reported = False


@contextmanager
def disk_full_after(bytes_: int) -> Iterator[None]:
    """Let no file grow beyond a size inside the block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def count(file: MetricsFile, values: int) -> None:
    for number in range(values):
        write(file, json.dumps(["n", "n", {"label": str(number)}, "Help."]), float(number))


def write(file: MetricsFile, key: str, value: float) -> None:
    file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]


def shared(path: Path) -> list[float]:
    """Return the values that other workers read."""
    found = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return [value for _, value, _, _ in found]


def test_space_of_a_file_is_allocated_before_it_is_mapped(path: Path) -> None:
    """A page of a sparse file that is first written on a full disk kills the process with SIGBUS."""
    count(MetricsFile(str(path)), 3)
    assert shared(path) == [0.0, 1.0, 2.0]
    assert (path.stat().st_size, path.stat().st_blocks * 512 >= BYTES) == (BYTES, True)
    count(MetricsFile.all[0], 3000)
    assert shared(path) == [float(number) for number in range(3000)]
    assert path.stat().st_blocks * 512 >= path.stat().st_size > BYTES


@pytest.mark.parametrize("bytes_", [0, BYTES])
def test_values_are_kept_in_memory_until_the_disk_has_space(
    path: Path, log_lines: LogStream, bytes_: int
) -> None:
    with disk_full_after(bytes_):
        count(file := MetricsFile(str(path)), 3000)
        keep_metrics_shared()
        MetricsFile(f"{path}.other")
        keep_metrics_shared()
    assert [line["cause"] for line in log_lines.of(WARNING)] == [os.strerror(27)]
    keep_metrics_shared()
    write(file, "[]", 7.0)
    assert shared(path) == [*(float(number) for number in range(3000)), 7.0]


def test_values_are_written_again_after_their_directory_was_removed(
    path: Path, log_lines: LogStream
) -> None:
    count(file := MetricsFile(str(path)), 2)
    shutil.rmtree(path.parent)
    write(file, "[]", 7.0)
    keep_metrics_shared()
    assert len(log_lines.of(WARNING)) == 1
    path.parent.mkdir(mode=0o700)
    keep_metrics_shared()
    write(file, "[1]", 8.0)
    assert shared(path) == [0.0, 1.0, 7.0, 8.0]


def test_a_removed_file_is_written_again(path: Path) -> None:
    count(MetricsFile(str(path)), 2)
    path.unlink()
    keep_metrics_shared()
    assert shared(path) == [0.0, 1.0]


def test_a_directory_of_other_users_is_not_used(path: Path, log_lines: LogStream) -> None:
    path.parent.chmod(0o777)
    count(MetricsFile(str(path)), 2)
    assert not path.exists()
    (line,) = log_lines.of(WARNING)
    assert line["cause"] == "the directory belongs to another user"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_worker_exposes_its_own_metrics_if_the_shared_ones_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    directory = tmp_path / "metrics"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    if is_there:
        directory.mkdir()
        (directory / "counter_1.db").write_bytes(b"\x60\0\0\0" + b"\x7f" * 96)
    assert b"alipayhk_ledger_usable" in Metrics().exposed(shared=True)


# -- workers that have exited


def totals(directory: Path) -> dict[str, float]:
    """Return the values of all files, as the workers show them together."""
    metrics = MultiProcessCollector(None, str(directory)).collect()  # type: ignore[no-untyped-call]
    return {sample.name: sample.value for metric in metrics for sample in metric.samples}


def counted(directory: Path, kind: str, pid: int, value: float) -> None:
    """Write the file of a worker that has exited."""
    file = MetricsFile(str(directory / f"{kind}_{pid}.db"))
    name = {"counter": "n_total", "histogram": "h_sum"}.get(kind, "g")
    write(file, json.dumps([name.partition("_")[0], name, {}, "Help."]), value)
    file.close()


def test_counts_of_exited_workers_are_kept_in_a_bounded_number_of_files(path: Path) -> None:
    directory = path.parent
    counted(directory, "counter", 1, 2.0)
    for pid in range(2, 12):
        for kind in ("counter", "histogram", "gauge_livesum"):
            counted(directory, kind, pid, float(pid))
        before = totals(directory)
        retire(directory, pid)
        assert totals(directory) == {name: before[name] for name in ("n_total", "h_sum")}
    assert totals(directory) == {"n_total": 67.0, "h_sum": 65.0}
    left = {file.name for file in directory.iterdir()}
    assert left == {"counter_1.db", "counter_exited.db", "histogram_exited.db"}


def test_files_are_not_merged_while_a_worker_reads_them(path: Path) -> None:
    counted(path.parent, "counter", 2, 2.0)
    with locked(path.parent), pytest.raises(BlockingIOError):
        retire(path.parent, 2)
    retire(path.parent, 2)
    assert not (path.parent / "counter_2.db").exists()


def test_files_stay_if_the_disk_is_too_full_to_merge_them(path: Path) -> None:
    counted(path.parent, "counter", 2, 2.0)
    with disk_full_after(0), pytest.raises(OSError, match="No space left"):
        retire(path.parent, 2)
    assert totals(path.parent) == {"n_total": 2.0}


def test_a_damaged_file_of_an_exited_worker_is_removed(path: Path) -> None:
    counted(path.parent, "counter", 2, 2.0)
    retire(path.parent, 2)
    (path.parent / "counter_3.db").write_bytes(b"\x60\0\0\0" + b"\x7f" * 96)
    retire(path.parent, 3)
    assert totals(path.parent) == {"n_total": 2.0}
