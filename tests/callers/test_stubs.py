"""The output of `make stubs`: the files that another language needs."""

from __future__ import annotations

import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from tests.peers.processes import ROOT, run
from tests.peers.tools import peer

STUBS = ROOT / "build" / "stubs"

pytestmark = pytest.mark.callers


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """Run `make stubs`."""
    result = run("make", "stubs")
    assert result.status == 0, result.output


def test_the_descriptor_set_contains_the_service_and_its_imports() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString((STUBS / "alipayhk-linkage-v1.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    service = pool.FindServiceByName("alipayhk.linkage.v1.LinkageService")
    assert [method.name for method in service.methods] == ["SyncLinkage", "BindAccount"]
    assert pool.FindEnumTypeByName("alipayhk.linkage.v1.ErrorReason").values_by_name


def test_protos_and_retry_policy_equal_those_of_the_repository() -> None:
    for path in (ROOT / "protos" / "alipayhk").rglob("*.proto"):
        copied = STUBS / path.relative_to(ROOT / "protos")
        assert copied.read_bytes() == path.read_bytes()
    for name in ("retry_service_config.json", "retry_service_config.shared_ledger.json"):
        assert (STUBS / name).read_bytes() == (ROOT / "clients" / name).read_bytes()
    policy = json.loads((STUBS / "retry_service_config.json").read_text("utf-8"))
    assert policy["methodConfig"][0]["name"] == [{"service": "alipayhk.linkage.v1.LinkageService"}]


def test_grpcurl_can_read_the_descriptor_set() -> None:
    grpcurl = (peer("grpcurl"), "-protoset", STUBS / "alipayhk-linkage-v1.binpb")
    described = run(*grpcurl, "describe", "alipayhk.linkage.v1.LinkageService.BindAccount")
    assert described.status == 0, described
    assert "BindAccountRequest" in described.out
