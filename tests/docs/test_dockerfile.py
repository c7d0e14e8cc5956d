"""Tests of the image that need no container engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.alipayhk.api import Api
from tests.docs.dockerfile import Image, steps
from tests.e2e.material import Material
from tests.peers.processes import ROOT, Completed, environment, run, running
from tests.peers.tools import check
from tests.ports import free_port


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/compose/sandbox.Dockerfile"])
def test_hadolint_finds_nothing(file: str) -> None:
    done = run(check("hadolint"), "--no-color", ROOT / file)
    assert done.status == 0, done.output


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.full
def test_the_steps_build_a_gateway_without_a_sandbox(tmp_path: Path) -> None:
    image = Image(tmp_path)
    for step in steps():
        image.do(step)
    made = files(image.root)
    program, variables = image.words["ENTRYPOINT"], image.variables()

    def gateway(*words: str, **settings: str) -> Completed:
        return run(*program, *words, env=variables | with_prefix(settings), cwd=image.workdir)

    assert gateway("--help").status == 0
    assert "sandbox" not in gateway("--help").out.partition("demo")[0]
    assert gateway("sandbox").status == 64
    python = program[0].replace("alipayhk-gateway", "python")
    for module in ("sandbox", "pip", "pytest"):
        assert run(python, "-c", f"import {module}", env=variables, cwd=image.workdir).status == 1, module
    assert not [name for name in made if "/site-packages/sandbox" in name]
    assert gateway("config", "check").status == 78

    material = Material(tmp_path / "settings")
    material.directory.mkdir()
    settings = {
        "LISTEN": f"127.0.0.1:{free_port()}",
        "ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "BASE_URL": f"http://127.0.0.1:{free_port()}",
        "CLIENT_ID": "SANDBOX_CLIENT_1",
        "SIGNING_KEY_FILE": str(material.ours.private_file),
        "PUBLIC_KEY_FILES": f"1={material.theirs.public_file}",
        **{f"{api.name}_PATH": f"/{api}" for api in Api},
        "LEDGER_URL": "off",
        "BIND_ACCOUNT_WITHOUT_LEDGER": "true",
        "DRAIN_DELAY_S": "0",
    }
    inside = variables | with_prefix(settings)
    assert gateway("config", "check", **settings).status == 0
    health = image.words["HEALTHCHECK"]
    assert run(*health, env=inside, cwd=image.workdir).status == 2
    with running(*program, *image.words["CMD"], env=inside, cwd=image.workdir) as serving:
        serving.wait_for_output('"event": "gateway started"')
        assert run(*health, env=inside, cwd=image.workdir).status == 0
        assert serving.end() == 0
    assert files(image.root) == made


def with_prefix(settings: dict[str, str]) -> dict[str, str]:
    prefixed = environment(settings)
    return {name: prefixed[name] for name in prefixed if name.startswith("ALIPAYHK_")}
