"""Calls with `buf curl`, which `make setup` installs into .venv."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from tests.peers.gateways import SERVICE, Gateway, Identities
from tests.peers.processes import ROOT, run
from tests.peers.requests import bind_account, sync_linkage

Buf = tuple[str | Path, ...]
SCHEMA = ("--schema", ROOT / "protos")


@pytest.mark.parametrize("method", ["SyncLinkage", "BindAccount"])
def test_rpcs_with_proto_files_and_by_reflection(
    buf_curl: Buf, without_reflection: Gateway, plain: Gateway, method: str
) -> None:
    for gateway, schema in ((without_reflection, SCHEMA), (plain, ())):
        request = sync_linkage() if method == "SyncLinkage" else bind_account()
        url = f"http://{gateway.address}/{SERVICE}/{method}"
        done = run(*buf_curl, *schema, "--data", json.dumps(request), url)
        assert done.status == 0, done.err
        assert json.loads(done.out)["result"]["status"] == "S"


def test_a_rejection_is_reported(buf_curl: Buf, plain: Gateway) -> None:
    request = sync_linkage(user_id="2160000000000001+USER_NOT_EXIST")
    url = f"http://{plain.address}/{SERVICE}/SyncLinkage"
    done = run(*buf_curl, "--data", json.dumps(request), url)
    assert done.status != 0
    reported = json.loads(done.err)
    assert reported["code"] == "not_found"
    kinds = [detail["type"] for detail in reported["details"]]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RequestInfo"]
    # buf prints details in base64 without padding.
    info = ErrorInfo.FromString(b64decode(reported["details"][0]["value"] + "=="))
    assert info.reason == "WALLET_REJECTED"


def test_over_mtls(buf_curl: Buf, over_mtls: Gateway, who: Identities) -> None:
    without_prior_knowledge = buf_curl[:-1]
    certificate = ("--cert", who.loyalty.chain_file, "--key", who.loyalty.key_file)
    done = run(
        *(*without_prior_knowledge, *SCHEMA, "--cacert", who.ca, *certificate),
        *("--data", json.dumps(sync_linkage())),
        f"https://{over_mtls.address}/{SERVICE}/SyncLinkage",
    )
    assert done.status == 0, done.err
