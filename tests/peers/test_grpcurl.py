"""Calls with grpcurl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import google.rpc.error_details_pb2
import pytest

from tests.peers.gateways import SERVICE, Gateway, Identities
from tests.peers.processes import ROOT, Completed, run
from tests.peers.requests import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    bind_account,
    details,
    sync_linkage,
)

PROTO = ("-import-path", ROOT / "protos", "-proto", "alipayhk/linkage/v1/linkage_service.proto")
# Without reflection grpcurl also needs the proto file of the details.
GOOGLEAPIS = Path(google.rpc.error_details_pb2.__file__).parents[2]
DETAILS = ("-import-path", GOOGLEAPIS, "-proto", "google/rpc/error_details.proto")
Words = tuple[str | Path, ...]


def call(
    grpcurl: Path,
    gateway: Gateway,
    method: str,
    request: Mapping[str, str],
    *flags: str | Path,
    channel: Words = ("-plaintext",),
) -> Completed:
    data = ("-d", json.dumps(request))
    return run(grpcurl, *channel, *flags, *data, gateway.address, f"{SERVICE}/{method}")


def answer(done: Completed) -> dict[str, object]:
    assert done.status == 0, done.output
    read: dict[str, object] = json.loads(done.out)
    return read


def test_sync_linkage_returns_the_result(grpcurl: Path, plain: Gateway) -> None:
    response = answer(call(grpcurl, plain, "SyncLinkage", sync_linkage()))
    assert response["result"] == {"status": "S", "code": "SUCCESS", "message": "success"}


def test_bind_account_returns_the_account_and_need_bind(grpcurl: Path, plain: Gateway) -> None:
    response = answer(call(grpcurl, plain, "BindAccount", bind_account(account_id="88780001")))
    assert response["need_bind"] is True
    assert isinstance(response["account"], dict)
    assert response["account"]["account_id"] == "88780001"


def test_a_rejection_is_reported_with_its_details(grpcurl: Path, plain: Gateway) -> None:
    request = bind_account(user_id="2160000000000001+USER_NOT_EXIST")
    done = call(grpcurl, plain, "BindAccount", request)
    assert done.status == NOT_FOUND
    reported = details(done.err)
    assert reported.keys() == {"ErrorInfo", "RequestInfo"}
    assert reported["ErrorInfo"]["reason"] == "WALLET_REJECTED"
    assert reported["ErrorInfo"]["domain"] == "linkage.alipayhk"
    metadata = reported["ErrorInfo"]["metadata"]
    assert (metadata["outcome"], metadata["retry"]) == ("rejected", "new_request_id")
    assert metadata["result_code"] == "USER_NOT_EXIST"
    assert reported["RequestInfo"] == {"request_id": request["request_id"]}


def test_every_fault_of_a_request_is_reported_by_field(grpcurl: Path, plain: Gateway) -> None:
    done = call(grpcurl, plain, "SyncLinkage", {"request_id": "peers-empty"})
    assert done.status == INVALID_ARGUMENT
    reported = details(done.err)
    assert reported["ErrorInfo"]["metadata"] == {"outcome": "not_sent", "retry": "new_request_id"}
    violations = reported["BadRequest"]["field_violations"]
    assert {"field": "biz_time", "description": "is required"} in violations
    assert {violation["field"] for violation in violations} >= {"operate_type", "user_id"}


def test_the_wait_before_a_retry_is_a_duration(grpcurl: Path, plain: Gateway) -> None:
    request = sync_linkage(user_id="2160000000000001+UNKNOWN_EXCEPTION")
    done = call(grpcurl, plain, "SyncLinkage", request, "-max-time", "3")
    assert done.status == UNAVAILABLE
    reported = details(done.err)
    assert reported["ErrorInfo"]["metadata"]["retry"] == "same_request_id"
    assert reported["RetryInfo"]["retry_delay"].removesuffix("s").replace(".", "").isdigit()


def test_proto_files_replace_reflection(grpcurl: Path, without_reflection: Gateway) -> None:
    by_reflection = call(grpcurl, without_reflection, "SyncLinkage", sync_linkage())
    assert by_reflection.status != 0
    assert "does not support the reflection API" in by_reflection.err
    answer(call(grpcurl, without_reflection, "SyncLinkage", sync_linkage(), *PROTO))
    rejected = sync_linkage(user_id="2160000000000001+USER_NOT_EXIST")
    done = call(grpcurl, without_reflection, "SyncLinkage", rejected, *PROTO, *DETAILS)
    assert details(done.err)["ErrorInfo"]["reason"] == "WALLET_REJECTED"


def test_over_tls(grpcurl: Path, over_tls: Gateway, who: Identities) -> None:
    done = call(grpcurl, over_tls, "SyncLinkage", sync_linkage(), channel=("-cacert", who.ca))
    assert answer(done)["result"]


def test_over_tls_with_a_name_that_is_not_in_dns(grpcurl: Path, over_tls: Gateway, who: Identities) -> None:
    channel = ("-cacert", who.ca, "-authority", "gateway.internal")
    assert answer(call(grpcurl, over_tls, "SyncLinkage", sync_linkage(), channel=channel))["result"]


def test_over_tls_a_foreign_ca_is_not_trusted(grpcurl: Path, over_tls: Gateway, who: Identities) -> None:
    channel = ("-cacert", who.foreign_ca, "-connect-timeout", "5")
    done = call(grpcurl, over_tls, "SyncLinkage", sync_linkage(), channel=channel)
    assert done.status == 1
    assert "certificate" in done.err


def mutual(who: Identities, name: str) -> Words:
    certificate = {"loyalty": who.loyalty, "unknown": who.unknown}[name]
    return ("-cacert", who.ca, "-cert", certificate.chain_file, "-key", certificate.key_file)


def test_a_caller_is_identified_by_its_certificate(
    grpcurl: Path, over_mtls: Gateway, who: Identities
) -> None:
    request = sync_linkage()
    answer(call(grpcurl, over_mtls, "SyncLinkage", request, channel=mutual(who, "loyalty")))
    assert over_mtls.call_logged(request["request_id"])["caller"] == "loyalty"


@pytest.mark.parametrize(
    ("name", "method", "status", "reason", "names"),
    [
        ("loyalty", "BindAccount", 64 + 7, "CALLER_NOT_ALLOWED", {}),
        (
            *("unknown", "SyncLinkage", UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
            {"caller_names": "URI:spiffe://corp/unknown"},
        ),
    ],
)
def test_a_denied_caller_gets_the_reason(
    grpcurl: Path,
    over_mtls: Gateway,
    who: Identities,
    name: str,
    method: str,
    status: int,
    reason: str,
    names: dict[str, str],
) -> None:
    request = sync_linkage() if method == "SyncLinkage" else bind_account()
    done = call(grpcurl, over_mtls, method, request, *PROTO, *DETAILS, channel=mutual(who, name))
    assert done.status == status
    reported = details(done.err)["ErrorInfo"]
    assert reported["reason"] == reason
    assert reported["metadata"] == {"outcome": "not_sent", "retry": "operator", **names}


def test_a_connection_without_a_certificate_fails(
    grpcurl: Path, over_mtls: Gateway, who: Identities
) -> None:
    channel = ("-cacert", who.ca, "-connect-timeout", "5")
    done = call(grpcurl, over_mtls, "SyncLinkage", sync_linkage(), *PROTO, channel=channel)
    assert done.status != 0
    assert "Details" not in done.err
