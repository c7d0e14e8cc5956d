"""Servers with known behaviour, and a sandbox with gateways, shared by all tests of the load tester."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.material import Material
from tests.load.runs import load, server
from tests.peers.gateways import gateway, sandbox


@pytest.fixture(scope="session")
def answering() -> Iterator[str]:
    with server("answers") as address:
        yield address


@pytest.fixture(scope="session")
def stalling() -> Iterator[str]:
    with server("stalls") as address:
        yield address


@pytest.fixture(scope="session")
def slow() -> Iterator[str]:
    """A server slower than any other server on a busy machine."""
    with server("slow", "1500") as address:
        yield address


@pytest.fixture(scope="session")
def capped() -> Iterator[str]:
    with server("capped", "50") as address:
        yield address


@pytest.fixture(scope="session")
def refusing() -> Iterator[str]:
    with server("refuses") as address:
        yield address


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="session")
def alipayhk(material: Material) -> Iterator[str]:
    with sandbox(material) as url:
        yield url


@pytest.fixture(scope="session")
def plain(material: Material, alipayhk: str) -> Iterator[str]:
    with gateway(material, alipayhk, LEDGER_URL="memory:", LOG_LEVEL="info") as serving:
        yield serving.address


@pytest.fixture(scope="session")
def encrypting(material: Material, alipayhk: str) -> Iterator[str]:
    with gateway(material, alipayhk, LEDGER_URL="memory:", LOG_LEVEL="info", ENCRYPT="true") as serving:
        yield serving.address


@pytest.fixture(scope="session")
def mixed(
    plain: str, encrypting: str, alipayhk: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, str]:
    """Return a run with the whole mix against real gateways, and its HTML report."""
    directory = tmp_path_factory.mktemp("mixed")
    page: Path = directory / "report.html"
    flags = (
        *("--rate", "80", "--duration", "3s", "--warm-up", "500ms", "--arrivals", "poisson", "--seed", "7"),
        *("--mix", "sync=70,bind=30", "--encrypted-target", encrypting, "--encrypted", "40"),
        *("--duplicates", "10", "--out-of-order", "10", "--cancelled", "6", "--short-deadline", "6"),
        *("--faults", "USER_NOT_EXIST=6,UNKNOWN_EXCEPTION=3", "--deadline", "3s"),
        *("--processes", "2", "--verify", alipayhk, "--html", str(page)),
    )
    return load(directory, plain, *flags), page.read_text("utf-8")
