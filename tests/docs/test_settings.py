"""The gateway accepts every example file of the pages."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from service.config.callers_file import callers_file
from service.config.result_codes_file import result_codes_file
from service.credentials.callers import Name
from tests.docs.pages import Block, all_blocks
from tests.e2e.material import Material
from tests.peers.processes import GATEWAY, environment, run

MOUNTED: Final = "/etc/alipayhk-gateway/"


def callers(text: str, material: Material) -> None:
    (file := material.directory / "callers.toml").write_text(text, "utf-8")
    assert callers_file(str(file)).by_name.keys() == {
        Name("URI", "spiffe://corp/loyalty"),
        Name("DNS", "loyalty.internal"),
    }


def result_codes(text: str, material: Material) -> None:
    (file := material.directory / "result_codes.toml").write_text(text, "utf-8")
    assert result_codes_file(str(file)).more.keys() == {"BindAccount"}


def settings(text: str, material: Material) -> None:
    """Check a settings file, with the files that it names moved to the test's directory."""
    here, certificate = material.directory, material.callers_ca.issue("gateway", "gateway.internal")
    files = {
        "tls.crt": certificate.chain_file,
        "tls.key": certificate.key_file,
        "callers-ca.crt": material.callers_ca.file,
        "signing.key.pem": material.ours.private_file,
        "alipayhk.pub.pem": material.theirs.public_file,
    }
    for name, file in files.items():
        text = text.replace(f"{MOUNTED}{name}", str(file))
    (file := here / "gateway.toml").write_text(text, "utf-8")
    done = run(GATEWAY, "config", "check", "--json", "--config", file, env=environment())
    assert done.status == 0, done.out
    assert json.loads(done.out)["settings"].keys() >= {name.upper() for name in tomllib.loads(text)}


READERS: Final[dict[tuple[str, str], Callable[[str, Material], None]]] = {
    ("docs/settings.md", "[callers.loyalty]"): callers,
    ("docs/settings.md", "[BindAccount]"): result_codes,
    ("docs/container.md", "signing_key_file"): settings,
}
# The commands of docs/sandbox.md save and use its examples.
USED_BY_COMMANDS: Final = ("docs/sandbox.md",)
EXAMPLES: Final = [block for block in all_blocks("toml") if block.page not in USED_BY_COMMANDS]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_an_example_is_accepted(block: Block, tmp_path: Path) -> None:
    (read,) = (
        read for (page, words), read in READERS.items() if page == block.page and words in block.text
    )
    read(block.text, Material(tmp_path))


def test_every_row_has_its_example() -> None:
    assert len(EXAMPLES) == len(READERS)
