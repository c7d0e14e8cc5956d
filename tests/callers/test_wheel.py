"""The built client in an empty environment, without the code of the gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.linkage.where import Where, a_sandbox, serving
from tests.peers.processes import ROOT, run

pytestmark = pytest.mark.callers

PROGRAM: Final = """
import asyncio, sys
from alipayhk_linkage import LinkageClient, LinkageError, SyncLinkageRequest

async def main():
    request = SyncLinkageRequest(
        request_id=sys.argv[2], operate_type="OPERATE_TYPE_BIND",
        external_identity_type="EXTERNAL_IDENTITY_TYPE_UID", external_identity_value=sys.argv[2],
        user_id=sys.argv[3], binding_target_type="BINDING_TARGET_TYPE_USER_ID",
    )
    request.biz_time.GetCurrentTime()
    async with LinkageClient(sys.argv[1]) as client:
        try:
            print("OK", (await client.sync_linkage(request)).result.code)
        except LinkageError as error:
            print(error.outcome, error.reason, error.retry)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with only the client's wheel and its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    assert run("make", "build", timeout_s=300).status == 0
    (wheel,) = (ROOT / "dist").glob("alipayhk_linkage-*.whl")
    assert run(sys.executable, "-m", "venv", directory / "venv", timeout_s=120).status == 0
    python = directory / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    installed = run(*pip, wheel, cwd=directory, timeout_s=300)
    assert installed.status == 0, installed.output
    return python


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Where]:
    """Return the addresses of a gateway and its sandbox."""
    with (
        a_sandbox(tmp_path_factory.mktemp("served")) as served,
        serving("plaintext", *served) as (where, _),
    ):
        yield where


def test_the_wheel_installs_no_dependencies_of_the_gateway(python: Path, tmp_path: Path) -> None:
    listed = run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path)
    names = {package["name"] for package in json.loads(listed.out)} - {"pip", "setuptools"}
    assert names == {
        "alipayhk-linkage",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "typing_extensions",
    }
    assert run(python, "-m", "pip", "check", cwd=tmp_path).status == 0


def test_a_program_makes_calls(python: Path, where: Where, tmp_path: Path) -> None:
    (program := tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    user_id = "2160000000000001"
    result = run(python, program, where.target, f"{where.run}-wheel-1", user_id, cwd=tmp_path)
    assert (result.status, result.out) == (0, "OK SUCCESS\n"), result
    bad = f"{user_id}+USER_NOT_EXIST"
    result = run(python, program, where.target, f"{where.run}-wheel-2", bad, cwd=tmp_path)
    assert (result.status, result.out) == (0, "rejected WALLET_REJECTED new_request_id\n"), result


def test_the_command_line_makes_calls(python: Path, where: Where, tmp_path: Path) -> None:
    client = python.parent / "alipayhk-client"
    flags = "--merchant-account-id 2160400000002012 --type TELECOM --sub-type MOBILE_SERVICE --account-id 1"
    more = f"--request-id {where.run}-wheel-3 --user-id 2160000000000001 --timestamp now"
    result = run(client, "bind-account", *where.flags, *flags.split(), *more.split(), cwd=tmp_path)
    assert (result.status, result.out.splitlines()[:1]) == (0, ["OK: AlipayHK accepted the request."]), (
        result
    )


def test_load_without_its_extra_names_the_package_to_install(python: Path, tmp_path: Path) -> None:
    result = run(python.parent / "alipayhk-client", "load", "--help", cwd=tmp_path)
    assert result.status == 64
    assert "install alipayhk-linkage[load]" in result.err
    assert "Traceback" not in result.err


def test_the_wheel_has_type_annotations(python: Path, tmp_path: Path) -> None:
    """A caller's type checker needs only the wheel for the types of the client and the stubs."""
    (tmp_path / "caller.py").write_text(
        "from alipayhk_linkage import BlockingLinkageClient, SyncLinkageRequest\n"
        'client = BlockingLinkageClient("gateway:50051")\n'
        'reveal_type(client.sync_linkage(SyncLinkageRequest(request_id="a")).result.code)\n'
        "client.sync_linkage(7)\n",
        "utf-8",
    )
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "caller.py")
    result = run(*mypy, cwd=tmp_path, timeout_s=180)
    assert 'Revealed type is "builtins.str"' in result.out or 'Revealed type is "str"' in result.out, result
    assert "Found 1 error" in result.out, result
    assert 'has incompatible type "int"; expected "SyncLinkageRequest"' in result.out, result
