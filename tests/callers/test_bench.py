"""The loader and the upstream of `make bench`: the gateway accepts each of the upstream's responses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from bench.compare import unexpected
from bench.subjects import BUILT, SUBJECTS, Subject, World
from tests.peers.processes import ROOT, run

pytestmark = pytest.mark.callers

SECONDS = 0.6
NAMES = (
    "go",
    "sqlite",
    "postgres",
    "captures-100",
    "bind",
    "encrypted",
    "invalid",
    "unlisted",
    "workers-2",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    command = ("go", "build", "-o", f"{BUILT}/", "./traffic", "./peers/go")
    built = run(*command, cwd=ROOT / "bench", timeout_s=600)
    assert built.status == 0, built.output
    with closing(World(tmp_path_factory.mktemp("bench"))) as world, world.answering():
        yield world


@pytest.mark.parametrize(
    "subject", [row for row in SUBJECTS if row.name in NAMES], ids=lambda row: row.name
)
def test_every_call_has_the_expected_status(world: World, subject: Subject) -> None:
    # With few calls in flight, a busy machine does not make the gateway refuse any.
    few = replace(subject, channels=4, in_flight=4)
    for rate in (0, 20):
        with world.serving(few) as server:
            report = world.load(server, few, SECONDS, rate)
            assert report["calls"] > 0
            assert unexpected(few, report) == 0, report["errors"]
