"""The load tester with mutual TLS and several processes. The report contains no file name and no key."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.material import Material
from tests.load.runs import load
from tests.peers.gateways import gateway, identities, tls


def test_load_over_mutual_tls(tmp_path: Path, material: Material, alipayhk: str) -> None:
    who = identities(material)
    callers = tmp_path / "callers.toml"
    callers.write_text('[callers.loyalty]\nsan = ["spiffe://corp/loyalty"]\nmethods = ["SyncLinkage"]\n')
    settings = tls(who, TLS_CLIENT_CA_FILE=who.ca, CALLERS_FILE=str(callers))
    mine = ("--cert-file", str(who.loyalty.chain_file), "--key-file", str(who.loyalty.key_file))
    with gateway(material, alipayhk, **settings) as serving:
        flags = ("--ca-file", who.ca, *mine, "--processes", "2", "--mix", "sync=50,bind=50")
        ran = load(tmp_path, serving.address, *flags, "--rate", "40", "--duration", "1s", "--warm-up", "0s")
    assert ran.status == 0, ran.out
    outcomes = {(row["rpc"], row["code"], row["reason"]) for row in ran.report["outcomes"]}
    assert outcomes == {
        ("SyncLinkage", "OK", ""),
        ("BindAccount", "PERMISSION_DENIED", "CALLER_NOT_ALLOWED"),
    }
    assert ran.report["settings"]["tls"] == "mutual"
    assert str(material.directory) not in json.dumps(ran.report)
